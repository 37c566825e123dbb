// The rule by which proposals pass: more than half of the active members.

export function resolve(_proposal, _proposerId, votes, _proposalId) {
  const isActive = (id) => read(governed("members.info"), ccf.strToBuf(id))?.status === "Active";
  const counted = votes.filter((vote) => isActive(vote.member_id));
  const inFavour = counted.filter((vote) => vote.vote).length;
  const against = counted.length - inFavour;

  const members = countActiveMembers(() => true);
  const needed = Math.floor(members / 2) + 1;
  if (inFavour >= needed) return "Accepted";
  // Not even all who may still vote could carry it.
  if (members - against < needed) return "Rejected";
  return "Open";
}
