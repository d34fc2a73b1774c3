// driver.c for WebAssembly: node driver.js module < job > results. The module's functions of C's library are those of
// JavaScript, rounded.
"use strict";
const fs = require("fs");
const [FIELDS, LINE, PAGE, STACK] = [14, 64, 65536, 1 << 20];
const [PARALLEL, POOL, THREADS, ARENA, CONSTS, INPUTS, OUTPUTS, STATE, SCRATCH, SCRATCH_BYTES, STATUS, CANCEL, PROFILE,
       SIZES] = Array(FIELDS).keys();

const job = fs.readFileSync(0);
const word = i => Number(job.readBigInt64LE(8 * i));
const [runs, arenaBytes, scratchBytes, sizeCount, prepares] = [0, 1, 2, 3, 4].map(word);
const counts = [5, 6, 7, 8, 9].map(word);
const all = counts.reduce((a, b) => a + b);
const bytes = Array.from({length: all}, (_, i) => word(10 + sizeCount + i));

const compiled = new WebAssembly.Module(fs.readFileSync(process.argv[2]));
const needed = bytes.reduce((a, b) => a + b + 2 * LINE, arenaBytes + scratchBytes + 8 * (all + sizeCount) + 4 * STACK);
const memory = new WebAssembly.Memory({initial: Math.ceil(needed / PAGE) + 64});
const imported = WebAssembly.Module.imports(compiled);
const env = {};
for (const {name, kind} of imported) {
  if (kind === "memory") env[name] = memory;
  else if (kind === "table") env[name] = new WebAssembly.Table({initial: 64, element: "anyfunc"});
  else if (kind === "global") env[name] = new WebAssembly.Global({value: "i32", mutable: true}, 2 * STACK);
  else env[name] = library(name);
}

function library(name) {
  const single = name.endsWith("f") && name !== "erf";
  const found = {fma: (a, b, c) => a * b + c, fmod: (a, b) => a % b, roundeven: x => {
    const r = Math.round(x);
    return r - x === 0.5 && r % 2 ? r - 1 : r;
  }}[single ? name.slice(0, -1) : name] || Math[single ? name.slice(0, -1) : name];
  if (!found) return () => { throw new Error("no function " + name); };
  return single ? (...x) => Math.fround(found(...x)) : found;
}

// data of the module lie at the beginning, then the stack, which grows down
let free = 2 * STACK;
function take(count) {
  const at = Math.ceil(free / LINE) * LINE;
  free = at + count;
  return at;
}

const instance = new WebAssembly.Instance(compiled, {env}).exports;
const u8 = new Uint8Array(memory.buffer), view = new DataView(memory.buffer);
const context = take(8 * FIELDS), table = take(8 * all), sizes = take(8 * sizeCount);
const field = (i, value) => view.setBigInt64(context + 8 * i, BigInt(value), true);
for (let i = 0; i < sizeCount; i++) view.setBigInt64(sizes + 8 * i, job.readBigInt64LE(8 * (10 + i)), true);
let read = 8 * (10 + sizeCount + all);
const [, , , states, derived] = counts, first = counts[0] + counts[1];
const places = bytes.map((count, i) => {
  const at = take(count);
  view.setBigInt64(table + 8 * i, BigInt(at), true);
  if (i < first || i >= all - states - derived && i < all - derived) {
    u8.set(job.subarray(read, read + count), at);
    read += count;
  }
  return at;
});
field(THREADS, 1);
for (const [i, count] of [[ARENA, arenaBytes], [SCRATCH, scratchBytes]]) {
  const at = take(count);
  u8.fill(0xff, at, at + count);        // not a number until it is written
  field(i, at);
}
field(SCRATCH_BYTES, scratchBytes);
field(SIZES, sizes);
field(CONSTS, counts[0] ? places[0] : 0);
field(INPUTS, table + 8 * counts[0]);
field(OUTPUTS, table + 8 * first);
field(STATE, table + 8 * (first + counts[2]));
let code = 0;
for (let i = 0; i < runs && code === 0; i++) {
  field(STATUS, 0x7FFFFFFFFFFFFFFFn);
  if (prepares) code = instance.gc_prepare(context);
  if (code === 0) code = instance.gc_main(context);
}
const results = [u8.subarray(context + 8 * STATUS, context + 8 * STATUS + 8)];
for (let i = first; i < all - derived; i++) results.push(u8.subarray(places[i], places[i] + bytes[i]));
fs.writeSync(1, Buffer.concat(results));
process.exitCode = code;
