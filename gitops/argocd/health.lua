-- The health of a DataPlatform, DataModel, MicroService or Migration, for Argo CD. Argo CD runs it with the resource under `obj`, and without the
-- libraries string and math.

local conditions = {}
local status = obj.status or {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end
local ready = conditions.Ready

local function health(state, otherwise)
  return {status = state, message = ready and ready.message or otherwise}
end

if obj.kind == "Migration" then
  -- By the state, as a migration that was applied once stays applied whatever else is tried later.
  if status.state == "Applied" or status.state == "Superseded" then
    return health("Healthy", status.state)
  elseif status.state == "WaitingForApproval" then
    return health("Suspended", "it waits for approval")
  elseif status.state == "Failed" then
    return health("Degraded", "PostgreSQL refused it")
  end
  return health("Progressing", "it is to run")
end

-- A suspended DataPlatform or DataModel keeps the status that it had.
if obj.spec.suspend then
  return {status = "Suspended", message = "spec.suspend is true"}
end
if not ready or status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "the operator has not looked at this spec yet"}
end
if ready.status == "True" then
  return health(ready.reason == "Suspended" and "Suspended" or "Healthy")
end
if conditions.Stalled and conditions.Stalled.status == "True" then
  return health("Degraded")
end
return health("Progressing")
