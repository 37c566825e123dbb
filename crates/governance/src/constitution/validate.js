// Whether a proposal is well formed: JSON with a list of known actions and right arguments.

export function validate(input) {
  const faults = [];
  try {
    const proposal = parseProposal(input);
    proposal.actions.forEach((action, position) => {
      try {
        validateAction(action);
      } catch (error) {
        const name = action?.name ?? "Action";
        faults.push(`${name} at position ${position} failed validation: ${error.message}`);
      }
    });
  } catch (error) {
    faults.push(error.message);
  }
  return { valid: faults.length === 0, description: faults.join("\n") };
}

function parseProposal(input) {
  let proposal;
  try {
    proposal = JSON.parse(input);
  } catch (error) {
    throw new Error(`The proposal is not JSON: ${error.message}`);
  }
  nonEmptyListOf(anything)(proposal?.actions, "actions");
  return proposal;
}

function validateAction(action) {
  object(action, "The action");
  string(action.name, "name");
  if (!Object.hasOwn(actions, action.name)) throw new Error("no such action");
  actions[action.name].validate(action.args);
}
