// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// One account that may do more than others.
abstract contract Ownable {
    event OwnershipTransferred(address indexed previousOwner, address indexed newOwner);

    error OwnableUnauthorizedAccount(address account);
    error OwnableInvalidOwner(address owner);

    address public owner;

    modifier onlyOwner() {
        if (msg.sender != owner) revert OwnableUnauthorizedAccount(msg.sender);
        _;
    }

    constructor(address first) {
        _transferOwnership(first);
    }

    function transferOwnership(address next) external onlyOwner {
        _transferOwnership(next);
    }

    function _transferOwnership(address next) private {
        if (next == address(0)) revert OwnableInvalidOwner(next);
        emit OwnershipTransferred(owner, next);
        owner = next;
    }
}
