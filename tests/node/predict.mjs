// The model of a bundle, run by another implementation than predict.py: onnxruntime-node, with samples read here.
//
//   NODE_MODULES=<folder> node predict.mjs BUNDLE REQUEST.json     prints JSON
//
// REQUEST is a list of samples: {file} (a PNG of 8 bits a channel), {shape, data} (pixels of a row, base64),
// {text} or {text, pair}. Each answer is {decision, probabilities, ids}; ids are the tokens, or null.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { inflateSync } from "node:zlib";

const require = createRequire(join(process.env.NODE_MODULES, "package.json"));
const ort = require("onnxruntime-node");
const [bundle, request] = process.argv.slice(2);
const read = (name) => JSON.parse(readFileSync(join(bundle, name), "utf8"));
const settings = read("preprocessing.json");
const labels = read("labels.json");

// Pixels of a PNG as RGB: grey, RGB or palette, without transparency and without interlacing.
function png(content) {
  let at = 8, header, palette;
  const parts = [];
  while (at < content.length) {
    const size = content.readUInt32BE(at), kind = content.toString("latin1", at + 4, at + 8);
    const body = content.subarray(at + 8, at + 8 + size);
    if (kind === "IHDR") header = body;
    if (kind === "PLTE") palette = body;
    if (kind === "tRNS") throw new Error("this reader knows no transparency");
    if (kind === "IDAT") parts.push(body);
    at += 12 + size;
  }
  const [width, height] = [header.readUInt32BE(0), header.readUInt32BE(4)];
  const [depth, colour, , , interlaced] = header.subarray(8);
  const channels = { 0: 1, 2: 3, 3: 1 }[colour];
  if (depth !== 8 || !channels || interlaced) throw new Error("this reader knows grey, RGB and palette of 8 bits");
  const lines = inflateSync(Buffer.concat(parts)), length = width * channels;
  const found = new Uint8Array(width * height * 3);
  let above = new Uint8Array(length);
  for (let y = 0; y < height; y++) {
    const filter = lines[y * (length + 1)];
    const line = Uint8Array.from(lines.subarray(y * (length + 1) + 1, (y + 1) * (length + 1)));
    for (let x = 0; x < length; x++) {
      const a = x >= channels ? line[x - channels] : 0, b = above[x], c = x >= channels ? above[x - channels] : 0;
      line[x] += [0, a, b, (a + b) >> 1, paeth(a, b, c)][filter];
    }
    for (let x = 0; x < width; x++)
      for (let k = 0; k < 3; k++) {
        const value = line[x * channels + (channels === 3 ? k : 0)];
        found[(y * width + x) * 3 + k] = colour === 3 ? palette[value * 3 + k] : value;
      }
    above = line;
  }
  return { shape: [height, width, 3], data: found };
}

function paeth(a, b, c) {
  const p = a + b - c, [da, db, dc] = [Math.abs(p - a), Math.abs(p - b), Math.abs(p - c)];
  return da <= db && da <= dc ? a : db <= dc ? b : c;
}

// The model's input for an image: as it is, or normalised where the model does not do that itself.
function imageInputs(sample, name) {
  const { shape, data } = sample.file
    ? png(readFileSync(sample.file))
    : { shape: sample.shape, data: Uint8Array.from(Buffer.from(sample.data, "base64")) };
  if (name === "image") return { image: new ort.Tensor("uint8", data, [1, ...shape]) };
  const [height, width] = shape, values = new Float32Array(3 * height * width);
  for (let k = 0; k < 3; k++)
    for (let i = 0; i < height * width; i++)
      values[k * height * width + i] = (data[i * 3 + k] / 255 - settings.mean[k]) / settings.std[k];
  return { [name]: new ort.Tensor("float32", values, [1, 3, height, width]) };
}

// What preprocessing.py does to a text before its tokenizer sees it; the blanks are those of Unicode, as Python has them.
const BLANK = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const clean = (text) =>
  text.replace(/\r\n?/g, "\n").replace(new RegExp(`^[${BLANK}\\ufeff]+`), "").replace(new RegExp(`[${BLANK}]+$`), "");

// Tokens of a text, cut to max_tokens: what is framed by special tokens loses its end, and not its frame.
// Of a vocabulary of words (WordLevel), version 0.2.0 has no number for a word that it does not know.
function tokens(tokenizer, text, most) {
  const encoded = (options) => tokenizer.encode(clean(text), options).ids.map((id) => id ?? settings.unknown_id);
  const whole = encoded({});
  if (whole.length <= most) return whole;
  const bare = encoded({ add_special_tokens: false });
  const around = whole.length - bare.length;
  let before = 0;
  while (before < around && !bare.every((id, i) => whole[before + i] === id)) before++;
  return [...whole.slice(0, before), ...bare.slice(0, most - around), ...whole.slice(before + bare.length)];
}

async function textInputs() {
  const { Tokenizer } = require("@huggingface/tokenizers");
  const tokenizer = new Tokenizer(read("tokenizer.json"), {});
  return (sample) => {
    if (sample.pair !== undefined) throw new Error("pairs are not read here");
    let ids = tokens(tokenizer, sample.text, settings.max_tokens);
    if (!ids.length) ids = [settings.unknown_id ?? settings.pad_id];
    const row = (values) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, ids.length]);
    const made = { input_ids: row(ids), attention_mask: row(ids.map(() => 1)), token_type_ids: row(ids.map(() => 0)) };
    return { ids, feed: Object.fromEntries(settings.inputs.map((name) => [name, made[name]])) };
  };
}

const samples = JSON.parse(readFileSync(request, "utf8"));
const session = await ort.InferenceSession.create(join(bundle, "model.onnx"), { intraOpNumThreads: 1 });
const ofText = session.inputNames.includes("input_ids") ? await textInputs() : null;
const answers = [];
for (const sample of samples) {
  const { ids, feed } = ofText ? ofText(sample) : { ids: null, feed: imageInputs(sample, session.inputNames[0]) };
  const found = await session.run(feed);
  const several = found.labels !== undefined;
  const decided = Array.from(several ? found.labels.data : found.label.data, Number);
  answers.push({
    decision: several ? labels.filter((_, i) => decided[i]) : labels[decided[0]],
    probabilities: Object.fromEntries(labels.map((label, i) => [label, found.probabilities.data[i]])),
    ids,
  });
}
console.log(JSON.stringify(answers));
