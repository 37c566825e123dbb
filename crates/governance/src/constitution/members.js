// Members and their recovery roles.

actions.set_member = {
  validate(args) {
    checkArguments(args, {
      cert: certificate,
      encryption_pub_key: optional(rsaPublicKey),
      member_data: optional(anything),
      recovery_role: optional(oneOf("NonParticipant", "Participant", "Owner")),
    });
    const needsKey = isGiven(args.recovery_role) && args.recovery_role !== "NonParticipant";
    if (needsKey && !isGiven(args.encryption_pub_key)) {
      throw new Error(`args.recovery_role ${args.recovery_role} needs args.encryption_pub_key`);
    }
  },
  apply(args) {
    const id = ccf.strToBuf(ccf.pemToId(args.cert));
    // A member who is set again must acknowledge again, and is out until then.
    const earlier = read(governed("members.info"), id);
    const heldShare = earlier?.status === "Active" && isRecoveryMember(id, earlier);
    const isOpen = readService().status === "Open";
    if (earlier?.status === "Active" && isOpen) checkMemberCanLeave(id, earlier);
    governed("members.certs").set(id, ccf.strToBuf(args.cert));
    if (isGiven(args.encryption_pub_key)) {
      const keys = governed("members.encryption_public_keys");
      keys.set(id, ccf.strToBuf(args.encryption_pub_key));
    } else {
      governed("members.encryption_public_keys").delete(id);
    }
    write(governed("members.info"), id, {
      status: "Accepted",
      member_data: args.member_data ?? undefined,
      recovery_role: args.recovery_role ?? undefined,
    });
    // The member acknowledges a state that a node has signed.
    const signature = read(ccf.kv["public:ccf.internal.signatures"], ONLY);
    write(governed("members.acks"), id, { state_digest: signature?.root ?? "" });

    // What the member keeps of its old role must be of no use. A new share comes with the
    // acknowledgement.
    if (heldShare && isOpen) ccf.node.triggerRecoverySharesRefresh();
  },
};

actions.remove_member = {
  validate(args) {
    checkArguments(args, { member_id: entityId });
  },
  apply(args) {
    const id = ccf.strToBuf(args.member_id);
    const infos = governed("members.info");
    const info = read(infos, id);
    if (info === undefined) return;

    const holdsShare = info.status === "Active" && isRecoveryMember(id, info);
    if (info.status === "Active") checkMemberCanLeave(id, info);

    infos.delete(id);
    governed("members.certs").delete(id);
    governed("members.encryption_public_keys").delete(id);
    governed("members.acks").delete(id);
    governed("cose_history").delete(id);

    // The share that the member keeps must be of no use with those of the others.
    if (holdsShare && readService().status === "Open") ccf.node.triggerRecoverySharesRefresh();
  },
};

actions.set_member_data = {
  validate(args) {
    checkArguments(args, { member_id: entityId, member_data: optional(anything) });
  },
  apply(args) {
    const id = ccf.strToBuf(args.member_id);
    const info = readExisting(governed("members.info"), id, `Member ${args.member_id}`);
    write(governed("members.info"), id, { ...info, member_data: args.member_data ?? undefined });
  },
};

// Whether a member holds a share or the whole key: by role, or by having a key where none is set.
function isRecoveryMember(id, info) {
  return governed("members.encryption_public_keys").has(id) && info.recovery_role !== "NonParticipant";
}

// Whether a member holds a share: an owner holds the whole key instead, and does not count towards
// the threshold.
function isRecoveryParticipant(id, info) {
  return isRecoveryMember(id, info) && info.recovery_role !== "Owner";
}

function countActiveMembers(holds) {
  let count = 0;
  governed("members.info").forEach((bytes, id) => {
    const info = ccf.bufToJsonCompatible(bytes);
    if (info.status === "Active" && holds(id, info)) count += 1;
  });
  return count;
}

function checkMemberCanLeave(id, info) {
  if (countActiveMembers(() => true) === 1) {
    throw new Error("There would be no active member left");
  }
  if (!isRecoveryMember(id, info)) return;
  const isParticipant = isRecoveryParticipant(id, info);
  const threshold = readConfig().recovery_threshold;
  const participants = countActiveMembers(isRecoveryParticipant) - (isParticipant ? 1 : 0);
  const owners = countActiveMembers(isRecoveryMember) - countActiveMembers(isRecoveryParticipant) - (isParticipant ? 0 : 1);
  // Owners alone are enough, since each recovers alone; shares must reach the threshold.
  const enough = participants > 0 ? participants >= threshold : owners > 0;
  if (!enough) {
    throw new Error(
      `Number of active recovery participants (${participants}) would be less than recovery threshold (${threshold})`,
    );
  }
}
