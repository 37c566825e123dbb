// The code manifest: which measured code may join. Whatever adds trust makes other open proposals
// void, since their voters did not know of it.

// Adds a row and removes a row of a map whose rows say who may join.
function allowlist(mapName, argument, check) {
  const shape = { [argument]: check };
  return {
    add: {
      validate(args) {
        checkArguments(args, shape);
      },
      apply(args, proposalId) {
        write(governed(mapName), ccf.strToBuf(args[argument]), "AllowedToJoin");
        dropOtherOpenProposals(proposalId);
      },
    },
    remove: {
      validate(args) {
        checkArguments(args, shape);
      },
      apply(args) {
        governed(mapName).delete(ccf.strToBuf(args[argument]));
      },
    },
  };
}

const sgx = allowlist("nodes.code_ids", "code_id", hexDigits);
actions.add_node_code = sgx.add;
actions.remove_node_code = sgx.remove;

const virtual = allowlist("nodes.virtual.measurements", "measurement", nonEmptyString);
actions.add_virtual_measurement = virtual.add;
actions.remove_virtual_measurement = virtual.remove;

const snp = allowlist("nodes.snp.measurements", "measurement", hexDigits);
actions.add_snp_measurement = snp.add;
actions.remove_snp_measurement = snp.remove;

actions.add_virtual_host_data = {
  validate(args) {
    checkArguments(args, { host_data: entityId });
  },
  apply(args, proposalId) {
    governed("nodes.virtual.host_data").set(ccf.strToBuf(args.host_data), ONLY);
    dropOtherOpenProposals(proposalId);
  },
};

actions.remove_virtual_host_data = {
  validate(args) {
    checkArguments(args, { host_data: entityId });
  },
  apply(args) {
    governed("nodes.virtual.host_data").delete(ccf.strToBuf(args.host_data));
  },
};

actions.add_snp_host_data = {
  validate(args) {
    checkArguments(args, { security_policy: string, host_data: entityId });
    // An empty policy says that only its digest is public.
    if (args.security_policy === "") return;
    const digest = ccf.crypto.digest("SHA-256", ccf.strToBuf(args.security_policy));
    if (toHex(digest) !== args.host_data) {
      throw new Error("args.host_data is not the SHA-256 of args.security_policy");
    }
  },
  apply(args, proposalId) {
    const policies = governed("nodes.snp.host_data");
    write(policies, ccf.strToBuf(args.host_data), args.security_policy);
    dropOtherOpenProposals(proposalId);
  },
};

actions.remove_snp_host_data = {
  validate(args) {
    checkArguments(args, { host_data: entityId });
  },
  apply(args) {
    governed("nodes.snp.host_data").delete(ccf.strToBuf(args.host_data));
  },
};

actions.add_snp_uvm_endorsement = {
  validate(args) {
    const decimal = pattern(/^\d{1,10}$/, "a decimal number, as a string");
    const did = pattern(/^did:x509:/, "a did:x509 identifier");
    checkArguments(args, { did, feed: nonEmptyString, svn: decimal });
  },
  apply(args, proposalId) {
    const [map, key] = [governed("nodes.snp.uvm_endorsements"), ccf.strToBuf(args.did)];
    write(map, key, { ...read(map, key), [args.feed]: { svn: args.svn } });
    dropOtherOpenProposals(proposalId);
  },
};

actions.remove_snp_uvm_endorsement = {
  validate(args) {
    checkArguments(args, { did: nonEmptyString, feed: nonEmptyString });
  },
  apply(args) {
    const [map, key] = [governed("nodes.snp.uvm_endorsements"), ccf.strToBuf(args.did)];
    const feeds = { ...read(map, key) };
    delete feeds[args.feed];
    if (Object.keys(feeds).length > 0) write(map, key, feeds);
    else map.delete(key);
  },
};

const cpuId = pattern(/^[0-9a-f]{8}$/, "8 lower-case hex digits");
const firmwareVersion = optional(integer(0, 255));

actions.set_snp_minimum_tcb_version = {
  validate(args) {
    const tcb_version = checkObject({
      boot_loader: firmwareVersion,
      tee: firmwareVersion,
      snp: firmwareVersion,
      microcode: firmwareVersion,
      fmc: firmwareVersion,
    });
    checkArguments(args, { cpuid: cpuId, tcb_version });
  },
  apply(args, proposalId) {
    write(governed("nodes.snp.tcb_versions"), ccf.strToBuf(args.cpuid), args.tcb_version);
    dropOtherOpenProposals(proposalId);
  },
};

actions.set_snp_minimum_tcb_version_hex = {
  validate(args) {
    const tcb = pattern(/^[0-9a-f]{16}$/, "16 lower-case hex digits");
    checkArguments(args, { cpuid: cpuId, tcb_version: tcb });
  },
  apply(args, proposalId) {
    const policy = ccf.tcbHexToPolicy(args.cpuid, args.tcb_version);
    write(governed("nodes.snp.tcb_versions"), ccf.strToBuf(args.cpuid), policy);
    dropOtherOpenProposals(proposalId);
  },
};

actions.remove_snp_minimum_tcb_version = {
  validate(args) {
    checkArguments(args, { cpuid: cpuId });
  },
  apply(args) {
    governed("nodes.snp.tcb_versions").delete(ccf.strToBuf(args.cpuid));
  },
};

function toHex(buffer) {
  const bytes = Array.from(new Uint8Array(buffer));
  return bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
