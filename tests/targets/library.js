// Trains with an exported library and predicts, as library_driver.c does, in JavaScript:
// node library.js module.wasm < job > results. The module is linked of the archive alone, and imports nothing.
"use strict";
const fs = require("fs");
const [STEPS, BATCH, FEATURES, CLASSES, LINE, PAGE] = [10, 8, 64, 10, 64, 65536];

const job = fs.readFileSync(0);
const threads = job.readInt32LE(0);
const compiled = new WebAssembly.Module(fs.readFileSync(process.argv[2]));
const imports = WebAssembly.Module.imports(compiled).filter(i => i.kind === "function").map(i => i.name);
if (imports.length) throw new Error("the library wants " + imports);
const net = new WebAssembly.Instance(compiled, {}).exports;

const bytes = Number(net.net_memory(BigInt(BATCH), threads));
const places = [bytes, 4 * BATCH * FEATURES, 4 * BATCH, 4 * BATCH * CLASSES, 4];
let free = net.memory.buffer.byteLength;
net.memory.grow(Math.ceil(places.reduce((a, b) => a + b + LINE, 0) / PAGE));
const [instance, x, y, result, loss] = places.map(count => {
  const at = Math.ceil(free / LINE) * LINE;
  free = at + count;
  return at;
});
const u8 = new Uint8Array(net.memory.buffer), results = [];
u8.set(job.subarray(4, 4 + 4 * BATCH * FEATURES), x);
u8.set(job.subarray(4 + 4 * BATCH * FEATURES), y);

let status = net.net_init(instance, BigInt(bytes), threads);
for (let step = 0; step < STEPS && !status; step++) {
  status = net.net_step(instance, x, y, loss);
  results.push(Buffer.from(u8.subarray(loss, loss + 4)));
}
if (!status) status = net.net_predict(instance, BigInt(BATCH), x, result);
results.push(Buffer.from(u8.subarray(result, result + 4 * BATCH * CLASSES)));
fs.writeSync(1, Buffer.concat(results));
process.exitCode = status || (net.net_predict(instance, -1n, x, result) === 0 ? 1 : 0);
