// Validates the API documents of a server, and JSON values against the schemas in them.
//
//   node validate.js asyncapi FILE           the document, with AsyncAPI's own parser
//   node validate.js openapi FILE            the document, with Redocly's linter
//   node validate.js values FILE VALUES      JSON values, with Ajv
//
// VALUES has one value per line: {"what": text for messages, "schema": JSON pointer into the
// document, "value": any JSON, "valid": whether it must conform}. Each problem is a line on standard
// output.
// Exit codes: 0 valid, 1 not valid, 2 wrong usage.
"use strict";

const fs = require("node:fs");

// In addition to the rules of the specification: examples must conform to their schemas.
const OPENAPI_RULES = {
  struct: "error",
  "no-unresolved-refs": "error",
  "no-undefined-server-variable": "error",
  "no-identical-paths": "error",
  "no-ambiguous-paths": "error",
  "path-parameters-defined": "error",
  "path-declaration-must-exist": "error",
  "path-not-include-query": "error",
  "operation-operationId": "error",
  "operation-operationId-unique": "error",
  "operation-operationId-url-safe": "error",
  "operation-parameters-unique": "error",
  "operation-summary": "error",
  "operation-tag-defined": "error",
  "operation-2xx-response": "error",
  "no-enum-type-mismatch": "error",
  "no-invalid-media-type-examples": "error",
  "no-invalid-schema-examples": "error",
  "no-required-schema-properties-undefined": "error",
  "spec-components-invalid-map-name": "error",
  "security-defined": "off",
};

// What AsyncAPI's parser calls an error or a warning; the rest are hints.
const WARNING = 1;

// Reports that a newer version of the specification exists, which is not an error.
const NEWER_VERSION = "asyncapi-latest-version";

async function asyncapi(text) {
  const { Parser } = require("@asyncapi/parser");
  const { document, diagnostics } = await new Parser().parse(text);
  const problems = diagnostics
    .filter(({ severity, code }) => severity <= WARNING && code !== NEWER_VERSION)
    .map(({ code, message, path }) => `${code} at /${path.join("/")}: ${message}`);
  if (!document && problems.length === 0) problems.push("the parser made no document of it");
  return problems;
}

async function openapi(text) {
  const { createConfig, lintFromString } = require("@redocly/openapi-core");
  const config = await createConfig({ rules: OPENAPI_RULES });
  const found = await lintFromString({ source: text, absoluteRef: "/openapi.json", config });
  // A WebSocket is opened by 101, which that rule does not know.
  const isWebSocket = ({ ruleId, location }) =>
    ruleId === "operation-2xx-response" && location[0]?.pointer.startsWith("#/paths/~1v1~1ws/");
  return found
    .filter((finding) => !isWebSocket(finding))
    .map(({ ruleId, message, location }) => `${ruleId} at ${location[0]?.pointer}: ${message}`);
}

// Closes every object that does not mention additional properties: clients ignore those, but a test
// must find a field that is sent and not described. Conditions and combinations are unchanged.
function close(schema) {
  if (Array.isArray(schema)) return schema.forEach(close);
  if (schema === null || typeof schema !== "object") return undefined;
  if (schema.type === "object" && schema.properties && schema.additionalProperties === undefined) {
    schema.additionalProperties = false;
  }
  for (const [key, value] of Object.entries(schema)) {
    if (!["if", "then", "not", "allOf"].includes(key)) close(value);
  }
  return undefined;
}

async function values(text, path) {
  const document = JSON.parse(text);
  const Ajv = document.openapi ? require("ajv/dist/2020") : require("ajv");
  // The whole document is not a schema, so unknown keywords are allowed.
  const ajv = new Ajv({ strict: false, allErrors: true, logger: false });
  require("ajv-formats")(ajv);
  close(document);
  ajv.addSchema({ ...document, $id: "document" });
  const problems = [];
  const lines = fs.readFileSync(path, "utf8").split("\n").filter((line) => line !== "");
  if (lines.length === 0) problems.push(`${path} has no values`);
  for (const { what, schema, value, valid } of lines.map((line) => JSON.parse(line))) {
    const check = ajv.getSchema(`document#${schema}`);
    if (!check) {
      problems.push(`${what}: the document has nothing at ${schema}`);
    } else if (check(value) !== valid) {
      const why = valid ? ajv.errorsText(check.errors, { dataVar: "value" }) : "it conforms";
      problems.push(`${what}: ${why}: ${JSON.stringify(value)}`);
    }
  }
  return problems;
}

async function main([command, file, ...rest]) {
  const commands = { asyncapi, openapi, values };
  if (!commands[command] || !file || rest.length !== (command === "values" ? 1 : 0)) {
    console.error("usage: validate.js asyncapi|openapi FILE, or validate.js values FILE VALUES");
    return 2;
  }
  const problems = await commands[command](fs.readFileSync(file, "utf8"), ...rest);
  for (const problem of problems) console.log(problem);
  return problems.length === 0 ? 0 : 1;
}

main(process.argv.slice(2)).then(
  (code) => { process.exitCode = code; },
  (error) => { console.error(error); process.exitCode = 2; },
);
