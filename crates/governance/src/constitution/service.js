// The service: its constitution, configuration, opening, and what it is asked to do at once.

function readService() {
  return readExisting(governed("service.info"), ONLY, "The service");
}

function readConfig() {
  return readExisting(governed("service.config"), ONLY, "The service configuration");
}

actions.set_constitution = {
  validate(args) {
    checkArguments(args, { constitution: nonEmptyString });
    ccf.gov.validateConstitution(args.constitution);
  },
  apply(args, proposalId) {
    write(governed("constitution"), ONLY, args.constitution);
    dropOtherOpenProposals(proposalId);
  },
};

const recoveryThreshold = integer(1, 254);

actions.set_recovery_threshold = {
  validate(args) {
    checkArguments(args, { recovery_threshold: recoveryThreshold });
  },
  apply(args) {
    changeConfig({ recovery_threshold: args.recovery_threshold });
  },
};

actions.set_service_configuration = {
  validate(args) {
    checkArguments(args, {
      reconfiguration_type: optional(oneOf("OneTransaction")),
      recovery_threshold: optional(recoveryThreshold),
      recent_cose_proposals_window_size: optional(integer(1, 10000)),
    });
  },
  apply(args) {
    changeConfig(args ?? {});
  },
};

actions.transition_service_to_open = {
  validate(args) {
    checkArguments(args, {
      next_service_identity: certificate,
      previous_service_identity: optional(certificate),
    });
  },
  apply(args) {
    const previous = args.previous_service_identity;
    if (readService().status === "Recovering" && !isGiven(previous)) {
      throw new Error("Opening a recovering service needs args.previous_service_identity too");
    }
    ccf.node.transitionServiceToOpen(
      isGiven(previous) ? ccf.strToBuf(previous) : undefined,
      ccf.strToBuf(args.next_service_identity),
    );
  },
};

// Binds a proposal to one service: the others refuse it.
actions.assert_service_identity = {
  validate(args) {
    checkArguments(args, { service_identity: certificate });
    if (readService().cert !== args.service_identity) {
      throw new Error("args.service_identity is not this service's certificate");
    }
  },
  apply() {},
};

actions.trigger_recovery_shares_refresh = {
  validate: noArguments,
  apply() {
    ccf.node.triggerRecoverySharesRefresh();
  },
};

actions.trigger_ledger_chunk = {
  validate: noArguments,
  apply() {
    ccf.node.triggerLedgerChunk();
  },
};

actions.trigger_snapshot = {
  validate: noArguments,
  apply() {
    ccf.node.triggerSnapshot();
  },
};

// Not offered by this version of the node yet; refused by name rather than half done.
function notOffered(shape) {
  return {
    validate(args) {
      checkArguments(args, shape);
      throw new Error("This version of the service does not offer the action yet");
    },
    apply() {
      throw new Error("This version of the service does not offer the action yet");
    },
  };
}

const days = integer(1, 36500);

actions.trigger_ledger_rekey = notOffered({});

actions.set_service_certificate_validity = notOffered({
  valid_from: moment,
  validity_period_days: optional(days),
});

function changeConfig(changes) {
  const config = readConfig();
  const threshold = changes.recovery_threshold;
  const changesThreshold = isGiven(threshold) && threshold !== config.recovery_threshold;
  const isOpen = changesThreshold && checkThreshold(threshold);

  for (const [name, value] of Object.entries(changes)) {
    if (isGiven(value)) config[name] = value;
  }
  write(governed("service.config"), ONLY, config);
  if (isOpen) ccf.node.triggerRecoverySharesRefresh();
}

// Whether the service is open, so that shares for the new threshold must be issued.
function checkThreshold(threshold) {
  const { status } = readService();
  if (status === "WaitingForRecoveryShares") {
    throw new Error(`Cannot set recovery threshold if service is ${status}`);
  }
  const participants = countActiveMembers(isRecoveryParticipant);
  if (status === "Open" && threshold > participants) {
    throw new Error(
      `Cannot set recovery threshold to ${threshold}: it would be greater than the number of active recovery participants (${participants})`,
    );
  }
  return status === "Open";
}
