-- test.lua HEALTH CASES…: runs a health check as Argo CD does (gopher-lua, a timeout and sealing aside) over the cases of the files.
local arguments = arg
local health = assert(loadfile(arguments[1]))
local cases = {}
for index = 2, #arguments do
  for _, case in ipairs(assert(loadfile(arguments[index]))()) do
    case.file = arguments[index]
    cases[#cases + 1] = case
  end
end

-- Argo CD gives base, table and a small part of os; what of the others a script used would fail there.
local print, exit = print, os.exit
debug.setmetatable("", nil)
string, math, io, os, debug, coroutine, channel, arg = nil, nil, nil, nil, nil, nil, nil, nil

local failed = 0
for _, case in ipairs(cases) do
  obj = case.object
  local ran, got = pcall(health)
  local wrong
  if not ran then
    wrong = "it fails: " .. tostring(got)
  elseif type(got) ~= "table" then
    wrong = "it gives no table"
  elseif got.status ~= case.health or got.message ~= case.message then
    wrong = "it is " .. tostring(got.status) .. " (" .. tostring(got.message) .. "), not " .. case.health .. " (" .. case.message .. ")"
  end
  if wrong then
    failed = failed + 1
    print(case.file .. ": " .. obj.kind .. ", " .. case.case .. ": " .. wrong)
  end
end
print((#cases - failed) .. " passed, " .. failed .. " failed")
exit(failed == 0 and 0 or 1)
