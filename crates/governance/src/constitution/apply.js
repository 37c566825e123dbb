// Carries out an accepted proposal: all of its actions, in order, or none.

export function apply(proposal, proposalId) {
  for (const action of JSON.parse(proposal).actions) {
    actions[action.name].apply(action.args ?? {}, proposalId);
  }
}
