// Participants.

actions.set_user = {
  validate(args) {
    checkArguments(args, { cert: certificate, user_data: optional(anything) });
  },
  apply(args) {
    const id = ccf.strToBuf(ccf.pemToId(args.cert));
    governed("users.certs").set(id, ccf.strToBuf(args.cert));
    setUserData(id, args.user_data);
  },
};

actions.remove_user = {
  validate(args) {
    checkArguments(args, { user_id: entityId });
  },
  apply(args) {
    const id = ccf.strToBuf(args.user_id);
    governed("users.certs").delete(id);
    governed("users.info").delete(id);
  },
};

actions.set_user_data = {
  validate(args) {
    checkArguments(args, { user_id: entityId, user_data: optional(anything) });
  },
  apply(args) {
    setUserData(ccf.strToBuf(args.user_id), args.user_data);
  },
};

function setUserData(id, data) {
  if (isGiven(data)) write(governed("users.info"), id, { user_data: data });
  else governed("users.info").delete(id);
}
