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
  checkReadable(proposal);
  nonEmptyListOf(anything)(proposal?.actions, "actions");
  return proposal;
}

// What an action writes must be JSON for every reader of the tables: Unicode throughout, and not
// too deep.
function checkReadable(value, depth = 0) {
  if (depth > 100) fail("The proposal", "JSON of at most 100 levels");
  if (typeof value === "string" && !value.isWellFormed()) {
    fail("The proposal", "well-formed Unicode");
  }
  if (value === null || typeof value !== "object") return;
  for (const [name, item] of Object.entries(value)) {
    checkReadable(name, depth);
    checkReadable(item, depth + 1);
  }
}

function validateAction(action) {
  object(action, "The action");
  string(action.name, "name");
  if (!Object.hasOwn(actions, action.name)) throw new Error("no such action");
  actions[action.name].validate(action.args);
}
