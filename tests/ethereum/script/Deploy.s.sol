// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Token} from "../contracts/Token.sol";

/// What `forge script` offers to scripts: only the two calls that are needed here.
interface Vm {
    function startBroadcast() external;
    function stopBroadcast() external;
}

/// Deploys the token and pays the first holder, as one script of several transactions.
contract Deploy {
    Vm private constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    bool public constant IS_SCRIPT = true;

    event log_named_address(string key, address value);

    function run(address holder) external returns (Token token) {
        vm.startBroadcast();
        token = new Token("Consortium Coin", "CNS", 1_000_000 ether);
        token.mint(holder, 500 ether);
        require(token.transfer(holder, 25 ether), "transfer");
        vm.stopBroadcast();
        emit log_named_address("token", address(token));
    }
}
