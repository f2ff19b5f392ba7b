// Tests of the page's functions that draw nothing; test_page_modules.py runs them.

import assert from "node:assert/strict";
import { test } from "node:test";

const load = (name) => import(`${process.env.PAGE}/${name}.js`);
const attention = await load("attention");
const branches = await load("branches");
const { LinkedBranches } = await load("linked_branches");
const copied = await load("copied");
const { ago, bytes, compact, counted, duration, fixed, percent, visibleToken } = await load("format");
const { checkpointsOf, comparedByDefault, findModel, missingIds, modelEntries, modelGroups, modelsVersion, pinnedId, shapeFacts } =
  await load("models");
const { isPickable, samplingFields } = await load("sampling");
const { LONGEST_WAIT, waitAfter } = await load("polling");
const { drawingOf, formatRange, longestColumn, nonFiniteNotes, parseRange } = await load("run_drawing");
const { RunFeed } = await load("run_feed");
const { describe, resumeCommand, shellWord } = await load("run_status");
const { MEASURES, differenceLevel, heatLevel, startsWindow } = await load("scales");
const series = await load("series");
const { LONGEST_LINK, formatHash, keyIn, numberParam, packText, parseHash, unpackText, withParams } = await load("state");
const { LinkedText } = await load("linked_text");
const { blocksOf, comparedSpans, displayed, inspectedSpans, signed } = await load("token_text");
const { ApiError } = await load("api");
const { Latest } = await load("latest");
const { readEvents, splitEvents } = await load("events");
const written = await load("written");

const AXES = ["step", "tokens", "epoch", "seconds"];

function column(points, extra = {}) {
  const steps = points.map(([step]) => step);
  const axes = Object.fromEntries(AXES.map((axis, index) => [axis, steps.map((step) => step * 10 ** index)]));
  return { count: points.length, bucketed: false, ...axes, value: points.map(([, value]) => value), low: null, high: null, nonFinite: [], ...extra };
}

test("a state survives its hash", () => {
  const params = new URLSearchParams([["m", "a b@step-3"], ["run", "x/y"], ["run", "ü&="]]);
  const state = parseHash(formatHash({ view: "read", params }));
  assert.equal(state.view, "read");
  assert.deepEqual([...state.params], [...params]);
  assert.match(formatHash({ view: "runs", params }), /^#\/runs\?m=a\+b@step-3&run=x\/y/);
});

test("an unknown or empty hash is the first view", () => {
  for (const hash of ["", "#", "#/", "#/nothing?m=a", "#content"]) assert.equal(parseHash(hash).view, "runs");
});

test("parameters are set, removed and repeated", () => {
  const params = withParams(new URLSearchParams("a=1&b=2"), { a: null, b: ["3", "4"], c: 0 });
  assert.equal(params.toString(), "b=3&b=4&c=0");
});

test("numbers in an address are kept between their limits", () => {
  const params = new URLSearchParams("a=5&b=x&c=&d=Infinity");
  assert.equal(numberParam(params, "a", { high: 2 }), 2);
  for (const name of ["b", "c", "d", "e"]) assert.equal(numberParam(params, name, { initial: 7 }), 7);
});

test("a key is found only where the command prints it", () => {
  assert.equal(keyIn("#key=a%2Bb"), "a+b");
  assert.equal(keyIn("#/read?key=a"), null);
});

test("a text survives the address, and broken ones are refused", async () => {
  for (const text of ["", "a", "Ünï 🙂\n\ttext".repeat(500)]) assert.equal(await unpackText(await packText(text)), text);
  assert.match(await packText("hello, hello, hello"), /^[\w-]+$/);
  for (const packed of ["%%%", "AAAA", "!"]) assert.equal(await unpackText(packed), null);
});

test("a text that is too long for the address stays without it", async () => {
  const text = new LinkedText();
  const long = Array.from({ length: 20_000 }, (_, index) => (index * 7919).toString(36)).join("");
  assert.equal(await text.write(long), null);
  assert.ok(text.isTooLong && long.length > LONGEST_LINK);
  await text.read(null);
  assert.equal(text.value, long);
  await text.read(await packText("short"));
  assert.deepEqual([text.value, text.isTooLong], ["short", false]);
  await text.read(null);
  assert.equal(text.value, "");
});

test("a text that is changed while an address is read or written stays", async () => {
  const text = new LinkedText();
  const older = text.write("all");
  text.value = "allr";
  assert.equal(await older, undefined);
  assert.equal(text.value, "allr");
  const reading = text.read(await packText("of an address"));
  text.value = "typed";
  await reading;
  assert.equal(text.value, "typed");
  const packed = await text.write("typed");
  await text.read(packed);
  assert.equal(text.value, "typed");
});

test("numbers and times are short", () => {
  assert.deepEqual([950, 1234, 99_960, 13_400_000, 2e9, 0.00123].map(compact), ["950", "1.2k", "100k", "13.4M", "2B", "0.00123"]);
  assert.deepEqual([5, 59.6, 243, 7500, 90_000, null].map(duration), ["5 s", "1 min", "4 min 3 s", "2 h 5 min", "1 d 1 h", "–"]);
  assert.deepEqual([1.23456, -0.5, "NaN", "Infinity", null].map((value) => fixed(value)), ["1.235", "−0.500", "NaN", "∞", "–"]);
  assert.deepEqual([0.345, 0.0123, 0.00001, 0].map(percent), ["34.5 %", "1.23 %", "< 0.01 %", "0 %"]);
  assert.deepEqual([counted(1, "run"), counted(1200, "run")], ["1 run", "1,200 runs"]);
  assert.deepEqual([0, 950, 13_400_000, 2.1e9, 1e12].map(bytes), ["0 B", "950 B", "13.4 MB", "2.1 GB", "1000 GB"]);
  assert.deepEqual([2, 243, 7500].map(ago), ["just now", "4 min ago", "2 h ago"]);
  assert.deepEqual([" a", "\n", ""].map(visibleToken), ["␣a", "↵", "∅"]);
});

test("waits grow with failures and have an end", () => {
  assert.deepEqual([0, 1, 2, 3, 20].map((count) => waitAfter(count, 500)), [500, 1000, 2000, 4000, LONGEST_WAIT]);
});

test("positions are found in ascending numbers", () => {
  const numbers = [0, 10, 20, 40];
  assert.deepEqual([-1, 0, 9, 10, 39, 99].map((x) => series.indexAtOrBefore(numbers, x)), [-1, 0, 0, 1, 2, 3]);
  assert.deepEqual([-5, 4, 5, 6, 31, 99].map((x) => series.nearestIndex(numbers, x)), [0, 0, 0, 1, 3, 3]);
  assert.equal(series.nearestIndex([], 1), -1);
});

test("series of the same records share axes in the reply, and have their own as columns", () => {
  const axes = [{ step: [1, 2], tokens: [8, 16], epoch: [0, 0], seconds: [1, 2] }];
  const one = { count: 2, bucketed: false, value: [5, 4], low: null, high: null, non_finite: [], axes: 0 };
  const columns = series.columnsOf({ axes, series: { lr: one, "train/loss": { ...one, value: [3, 2] } } });
  series.appendRecords(columns, [{ step: 3, tokens: 24, epoch: 0, seconds: 3, lr: 1 }]);
  assert.deepEqual(columns.get("lr").step, [1, 2, 3]);
  assert.deepEqual(columns.get("train/loss").step, [1, 2]);
});

test("records are appended to their columns, also to new ones and to buckets", () => {
  const columns = new Map([["train/loss", column([[1, 5]], { low: [4], high: [6] })]]);
  const record = { step: 2, tokens: 20, epoch: 200, seconds: 2000, "train/loss": 3, "val/loss": "NaN", lr: 0.1 };
  series.appendRecords(columns, [record]);
  assert.deepEqual(columns.get("train/loss").value, [5, 3]);
  assert.deepEqual(columns.get("train/loss").high, [6, 3]);
  assert.deepEqual(columns.get("lr").seconds, [2000]);
  assert.deepEqual(columns.get("val/loss").nonFinite, [{ step: 2, value: "NaN" }]);
  assert.equal(columns.get("val/loss").value.length, 0);
  assert.deepEqual(nonFiniteNotes(columns, { "val/loss": "validation loss" }), ["validation loss is not finite: NaN at step 2."]);
});

test("steps and positions on an axis are converted both ways", () => {
  const one = column([[10, 1], [20, 1]]);
  assert.equal(series.axisAt(one, "tokens", 15), 150);
  assert.equal(series.stepAt(one, "tokens", 150), 15);
  assert.deepEqual([series.axisAt(one, "epoch", 0), series.axisAt(one, "epoch", 99)], [1000, 2000]);
  assert.equal(series.stepAt(column([]), "tokens", 7), 7);
});

test("overfitting begins at the lowest value, if the last one is higher", () => {
  assert.equal(series.overfittingStart(column([[1, 5], [2, 4], [3, 4.02]])), null);
  assert.equal(series.overfittingStart(column([[1, 5], [2, 4], [3, 4.2]])).step, 2);
  assert.equal(series.overfittingStart(column([])), null);
});

test("a step shows the samples of the last evaluation", () => {
  const samples = [10, 10, 20].map((step, index) => ({ step, text: `${index}` }));
  const texts = (step) => series.samplesAt(samples, step).map((sample) => sample.text);
  assert.deepEqual([5, 10, 19, 20, 99].map(texts), [["0", "1"], ["0", "1"], ["0", "1"], ["2"], ["2"]]);
  assert.deepEqual(series.samplesAt([], 1), []);
});

test("values are chosen evenly, the first and the last among them", () => {
  assert.deepEqual(series.evenlySpaced(3, 50), [0, 1, 2]);
  const chosen = series.evenlySpaced(1001, 50);
  assert.deepEqual([chosen.length, chosen[0], chosen.at(-1)], [50, 0, 1000]);
});

const PALETTE = { train: "#111111", val: "#222222", runs: [], ink: "#000000", soft: "#777777", line: "#cccccc" };
const CHOICES = { chart: "loss", axis: "step", isLog: false, range: null, hasBaselines: true, palette: PALETTE };

test("one run has colors for training and validation, several have one for each run", () => {
  const columns = new Map([["train/loss", column([[1, 5]])], ["val/loss", column([[1, 4], [2, 5]])]]);
  const run = (id, color) => ({ id, color, columns, baselines: { unigram_nats_per_token: 6, xz_bits_per_byte: null } });
  const one = drawingOf([run("a", "#abcdef")], CHOICES);
  assert.deepEqual(one.lines.map(({ label, color }) => [label, color]), [["training", "#111111"], ["validation", "#222222"]]);
  assert.deepEqual(one.baselines, [{ label: "unigram", value: 6 }]);
  assert.deepEqual([one.marks[0].x, one.marks[0].label], [1, "overfitting begins, step 1"]);
  const two = drawingOf([run("a", "#aaaaaa"), run("b", "#bbbbbb")], CHOICES);
  assert.deepEqual(two.baselines, one.baselines);
  assert.deepEqual(drawingOf([run("a", ""), { ...run("b", ""), baselines: null }], CHOICES).baselines, []);
  assert.deepEqual(two.lines.map(({ color }) => color), ["#aaaaaa", "#aaaaaa", "#bbbbbb", "#bbbbbb"]);
  assert.equal(longestColumn(columns), columns.get("val/loss"));
});

test("runs that are not loaded and metrics that were not measured are not drawn", () => {
  const drawing = drawingOf([{ id: "a", columns: null }], CHOICES);
  assert.deepEqual([drawing.lines, drawing.baselines, drawing.marks], [[], [], []]);
  assert.deepEqual(drawingOf([{ id: "a", columns: new Map() }], { ...CHOICES, chart: "bits" }).lines, []);
});

test("a range survives the address", () => {
  assert.deepEqual(parseRange(formatRange([12.5, 1e6])), [12.5, 1e6]);
  for (const text of [null, "", "5", "9~3", "a~b"]) assert.equal(parseRange(text), null);
  assert.equal(formatRange(null), null);
});

const ROW = { run: "story", path: "runs/my story", state: "training", changed: 1000, steps: 50, max_steps: 100, seconds: 10, seconds_left: 60, tokens_per_sec: 1200, problem: null };

test("every state of a run is said in words", () => {
  const said = (changes, now = 1001) => describe({ ...ROW, ...changes }, now);
  assert.equal(said({}), "step 50 of 100, 1.2k tokens/s, 1 min left");
  assert.match(said({}, 1030), /last record 30 s ago$/);
  assert.match(said({ steps: null }), /no record yet/);
  assert.match(said({ state: "stale" }, 1240), /the last record is 4 min old/);
  assert.equal(said({ state: "finished" }), "finished after 50 steps in 10 s");
  assert.match(said({ state: "diverged" }), /diverged at step 50/);
  assert.match(said({ state: "stopped" }), /can be resumed/);
  assert.equal(said({ problem: "config is broken" }), "config is broken");
});

test("a stopped run names the command that resumes it, quoted for a shell", () => {
  assert.equal(resumeCommand(ROW), null);
  assert.equal(resumeCommand({ ...ROW, state: "stopped" }), "tokenloom train --resume 'runs/my story'");
  assert.equal(shellWord("it's"), `'it'"'"'s'`);
});

test("colors have fixed levels", () => {
  assert.deepEqual([-1, 0, 0.4, 3.6, 11.9, 50, NaN].map(heatLevel), [0, 0, 0, 4, 12, 12, 12]);
  assert.deepEqual([0, 0.05, -0.05, 0.1, -0.7, 1, 9, -9, NaN].map(differenceLevel), [0, 0, 0, 1, -2, 3, 5, -5, 0]);
  assert.deepEqual([1, 64, 4096, 50_000].map(MEASURES.rank.level), [0, 6, 12, 12]);
  const token = { log_probability: -3, rank: 2, entropy: 1 };
  assert.deepEqual(Object.values(MEASURES).map((measure) => measure.value(token)), [3, 2, 1, 2]);
});

test("a window begins where only one token is its context", () => {
  const starts = Array.from({ length: 9 }, (_, index) => index).filter((index) => startsWindow(index, 4, 4));
  assert.deepEqual(starts, [4, 8]);
  assert.equal(startsWindow(4, 8, 4), false);
});

test("a text is shown token by token", () => {
  const token = { text: "b", log_probability: "-Infinity", rank: 3, entropy: 1.5 };
  const [first, second] = inspectedSpans({ first: { text: "a" }, tokens: [token], context: 4, stride: 4 }, "nats");
  assert.deepEqual([first.text, first.className], ["a", ""]);
  assert.deepEqual([second.className, second.label], ["heat-12", "b: loss Infinity nats"]);
});

test("a comparison is shown part by part", () => {
  const parts = [{ text: "x", difference: -1.2 }, { text: "y", difference: 0.2 }, { text: "z", difference: 0 }];
  const spans = comparedSpans({ before: "w", parts });
  assert.deepEqual(spans.map((span) => span.className), ["", "better-3", "worse-1", ""]);
  assert.equal(spans[1].label, "x: −1.20 nats");
  assert.deepEqual([signed(0.001), signed(2)], ["0.00", "+2.00"]);
});

test("long texts are in blocks that end at line ends", () => {
  const spans = ["a", "b\n", "c", "\n", "d"].map((text) => ({ text }));
  const starts = (size) => blocksOf(spans, size).map((block) => block.start);
  assert.deepEqual([starts(1), starts(3), starts(100)], [[0, 2, 4], [0, 4], [0]]);
  assert.equal(blocksOf(spans, 1).flatMap((block) => block.spans).length, spans.length);
  assert.equal(displayed("a\n\tb"), "a↵\n→\tb");
});

const MODELS = [
  { id: "story", name: "story@step-9", run: "story", step: 9 },
  { id: "story@best", name: "story@step-3", run: "story", step: 3 },
  { id: "gpt2", name: "gpt2", run: null, step: null },
];

test("models are listed by their runs, and links name the step", () => {
  const groups = modelGroups(MODELS, [{ run: "story", state: "training" }], "gpt2");
  assert.deepEqual(groups.map(({ label }) => label), ["story", "Models"]);
  assert.deepEqual(groups[0].options.map(({ label }) => label), ["story @ 9, live", "story @ 3, best"]);
  assert.deepEqual(groups[1].options, [{ id: "gpt2", label: "gpt2", isChosen: true }]);
  assert.equal(findModel(MODELS, null).id, "story");
  assert.equal(findModel(MODELS, "gone"), null);
  assert.deepEqual(missingIds(MODELS, [null, "gone", "gpt2"]), ["gone"]);
  assert.deepEqual([pinnedId(MODELS, null), pinnedId(MODELS, "gpt2"), pinnedId(MODELS, "gone")], ["story@step-9", "gpt2", "gone"]);
});

const NAMES = { story: 9, "story@best": 9, "story@first": 1, "story@step-9": 9, "story@step-5": 5, "story@step-1": 1 };
const WEIGHTS = Object.entries(NAMES).map(([id, step]) => ({ id, name: `story@step-${step}`, run: "story", step }));

test("the same weights are one model of the list, with all their names", () => {
  const options = (chosen) => modelGroups(WEIGHTS, [], chosen)[0].options;
  assert.deepEqual(options("story@best").map(({ id, label, isChosen }) => [id, label, isChosen]), [
    ["story", "story @ 9, newest, best", true],
    ["story@step-5", "story @ 5", false],
    ["story@first", "story @ 1, first", false],
  ]);
  assert.equal(options("story@step-9")[0].label, "story @ 9, newest, best, pinned");
  assert.equal(options("story@step-5")[1].label, "story @ 5");
});

test("a model is compared with the first checkpoint of its run, and this with the newest one", () => {
  const compared = (id, models = WEIGHTS) => comparedByDefault(models, findModel(models, id))?.id;
  assert.deepEqual(["story", "story@step-5", "story@step-1"].map((id) => compared(id)), ["story@first", "story@first", "story"]);
  assert.equal(compared("gpt2", MODELS), "story");
  assert.equal(compared("gpt2", MODELS.slice(2)), undefined);
});

test("checkpoints are the different weights of a run, the newest first", () => {
  const models = [
    ...MODELS.slice(0, 2),
    { id: "story@first", name: "story@step-3", run: "story", step: 3 },
    { id: "story@step-9", name: "story@step-9", run: "story", step: 9 },
    { id: "story@step-3", name: "story@step-3", run: "story", step: 3 },
  ];
  const uses = [{ name: "story@step-3", memory_bytes: 5 }, { name: "story@step-3", memory_bytes: 7 }];
  const found = checkpointsOf(models, uses);
  assert.deepEqual(found.map(({ id, isNewest, isBest, isFirst, bytes }) => [id, isNewest, isBest, isFirst, bytes]), [
    ["story@step-9", true, false, false, 0],
    ["story@step-3", false, true, true, 12],
  ]);
  const [only] = checkpointsOf([MODELS[1], { ...MODELS[1], id: "story@first" }]);
  assert.deepEqual([only.id, only.isNewest, only.isBest, only.isFirst], ["story@best", false, true, false]);
});

test("the table of models has the runs, also those without a checkpoint, and the models without a run", () => {
  const rows = [{ run: "new" }, { run: "story" }];
  const entries = modelEntries(MODELS, rows, [{ name: "gpt2", memory_bytes: 5 }]);
  assert.deepEqual(entries.map(({ id, row, checkpoints, bytes }) => [id, row?.run, checkpoints.length, bytes]), [
    ["story", "story", 2, 0],
    ["gpt2", undefined, 1, 5],
    ["new", "new", 0, 0],
  ]);
});

test("a shape is told with its exact size and with heads that share keys", () => {
  const shape = { family: "modern", layers: 2, heads: 4, kv_heads: 2, head_width: 8, width: 32, mlp_width: 96, context: 64, vocabulary: 2048, parameters: 13_412_992 };
  const facts = Object.fromEntries(shapeFacts(shape, null).map(([label, value, more]) => [label, [value, more]]));
  assert.deepEqual(facts.Parameters, ["13.4M", "13,412,992"]);
  assert.deepEqual(facts.Heads, ["4", "8 wide, 2 heads of keys and values"]);
  assert.deepEqual(facts.Vocabulary, ["2,048", ""]);
});

test("attention weights have levels on a scale of square roots", () => {
  assert.deepEqual([0, 0.001, 0.01, 0.25, 1, 1.1].map(attention.weightLevel), [0, 0, 1, 6, 12, 12]);
});

test("the largest weights come first, and of equal ones the nearest", () => {
  const found = attention.largestWeights([0.25, 0.1, 0.25, 0.4], 3);
  assert.deepEqual(found.map(({ index }) => index), [3, 2, 0]);
});

test("a head is described by where it looks on average, without the first token", () => {
  const found = attention.averages([[1], [0.25, 0.75], [0.5, 0.5, 0]]);
  assert.deepEqual(found, { itself: 0.375, previous: 0.375, first: 0.375, distance: (0.25 + 1 + 0.5) / 2 });
  assert.equal(attention.averages([[1]]), null);
});

test("heads are those of the model, and arrow keys stay among them", () => {
  const model = { layers: 2, heads: 3 };
  assert.deepEqual(attention.headOf(model, 9, 1.5), { layer: 1, head: 1 });
  const moved = (key) => attention.movedHead(model, { layer: 1, head: 0 }, key);
  assert.deepEqual(["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"].map(moved), [
    { layer: 0, head: 0 }, { layer: 1, head: 0 }, { layer: 1, head: 0 }, { layer: 1, head: 1 },
  ]);
  assert.equal(moved("Enter"), null);
  assert.deepEqual(attention.cellAt(0.99, 0.5, 4), { row: 2, column: 3 });
  assert.deepEqual(attention.cellAt(1, -0.1, 4), { row: 0, column: 3 });
});

test("sampling parameters that are off are left out, and parts of characters are not picked", () => {
  assert.deepEqual(samplingFields({ temp: 1, k: 0, p: 1, minp: 0 }), { temperature: 1 });
  assert.deepEqual(samplingFields({ temp: 0, k: 5, p: 0.5, minp: 0.1 }), { temperature: 0, top_k: 5, top_p: 0.5, min_p: 0.1 });
  assert.deepEqual(["a", "", "\ufffd"].map((text) => isPickable({ text })), [true, false, false]);
});

test("a newer question ends an older one, and the same is asked once", async () => {
  const latest = new Latest();
  let asked = 0;
  const answers = [];
  const slow = latest.ask("a", (signal) => new Promise((resolve) => signal.addEventListener("abort", () => resolve("old"))), () => answers.push(latest.reply));
  const fast = () => latest.ask("b", async () => (asked += 1), () => answers.push(latest.reply));
  await Promise.all([slow, fast(), fast()]);
  assert.deepEqual([answers, asked, latest.isPending], [[1], 1, false]);
  await latest.ask("c", async () => { throw new Error("no"); }, () => {});
  assert.deepEqual([latest.reply, latest.error.message], [1, "no"]);
  let refused = 0;
  const refusing = (status) => async () => { throw new ApiError(`refused ${(refused += 1)}`, { status }); };
  for (const status of [404, 404, 503, 503]) await latest.ask(String(status), refusing(status), () => {});
  assert.equal(refused, 3); // one that was busy is asked again
});

test("events are read as they arrive, also cut anywhere", async () => {
  assert.deepEqual(splitEvents('data: {"a": 1}\n\ndata: [DONE]\n\ndata: {"b'), { data: ['{"a": 1}', "[DONE]"], rest: 'data: {"b' });
  const bytes = new TextEncoder().encode('data: {"text": "ü"}\n\ndata: {"text": "b"}\n\ndata: [DONE]\n\n');
  for (const size of [1, 7, 100]) {
    const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) => bytes.slice(index * size, (index + 1) * size));
    const texts = [];
    for await (const event of readEvents(ReadableStream.from(chunks))) texts.push(event.text);
    assert.deepEqual(texts, ["ü", "b"]);
  }
});

function choice(text, ...tokens) {
  return {
    text,
    finish_reason: null,
    logprobs: {
      token_ids: tokens.map(([id]) => id),
      text_offset: tokens.map(([, offset]) => offset),
      token_logprobs: tokens.map(() => -1),
      top_tokens: tokens.map(([id]) => [{ id, bytes: [98], logprob: -1 }, { id: 9, bytes: [120, 121], logprob: -2 }]),
    },
  };
}

test("a continuation grows by events, and another token replaces its end", () => {
  let sample = written.extended(written.emptySample(), choice("a🙂", [1, 0], [2, 1]));
  sample = written.extended(sample, { ...choice("b", [3, 2]), finish_reason: "length" });
  assert.deepEqual([sample.text, sample.finish, written.tokenTexts(sample)], ["a🙂b", "length", ["a", "🙂", "b"]]);
  const branch = written.branched(sample, 1, sample.tokens[1].top[1]);
  assert.deepEqual([branch.text, branch.tokens.length, branch.finish], ["axy", 2, null]);
  const longer = written.extended(branch, choice("z", [4, 0]));
  assert.deepEqual(written.tokenTexts(longer), ["a", "xy", "z"]);
});

test("a prompt that is too long loses its begin", () => {
  const tokens = [1, 2, 3, 4, 5, 6];
  assert.deepEqual(written.fitted({ tokens, max_model_len: 6 }, 3), { ids: [3, 4, 5, 6], total: 6, maxTokens: 3, context: 6 });
  assert.deepEqual(written.fitted({ tokens, max_model_len: 6 }, 100), { ids: [6], total: 6, maxTokens: 6, context: 6 });
  assert.deepEqual(written.fitted({ tokens: [], max_model_len: 6 }, 3), { ids: [], total: 0, maxTokens: 3, context: 6 });
});

test("a request is written as commands", () => {
  const body = { model: "story@step-9", prompt: "it's", max_tokens: 8, top_k: 5, seed: 3 };
  const line = written.curlLine("http://localhost", body, true);
  assert.match(line, /^curl http:\/\/localhost\/v1\/completions -H 'Content-Type: application\/json' -H 'Authorization: Bearer KEY' -d /);
  assert.ok(line.includes(`it'"'"'s`));
  const lines = written.pythonLines("http://localhost", body, false);
  assert.ok(lines.includes('prompt="it\'s", max_tokens=8, seed=3, extra_body={"top_k":5}'));
});

const token = (id, text, probability = 0.5) => ({ id, text, logProbability: Math.log(probability) });

/** "all" with two branches: " work and", and " play", at which it is. */
function someTree() {
  let tree = branches.newTree("all");
  tree = branches.chosen(branches.chosen(tree, token(1, " work")), token(2, " and", 0.25));
  return branches.chosen(branches.moved(tree, 0), token(3, " play"));
}

test("a token that is chosen where another was begins a branch, and the same one does not", () => {
  const tree = someTree();
  assert.equal(branches.textAt(tree), "all play");
  assert.deepEqual(branches.childrenOf(tree, 0), [1, 3]);
  const again = branches.chosen(branches.moved(tree, 0), token(1, " work"));
  assert.deepEqual([branches.textAt(again), again.nodes.length], ["all work", 4]);
  assert.deepEqual(branches.rowsOf(tree), { nodes: [0], branches: [{ nodes: [1, 2], branches: [] }, { nodes: [3], branches: [] }] });
  assert.deepEqual(branches.pathTo(tree, 2), [0, 1, 2]);
});

test("undo takes the last token back, and redo goes to where one was", () => {
  let tree = branches.moved(someTree(), 2);
  for (let count = 0; count < 2; count += 1) tree = branches.moved(tree, branches.undoTarget(tree));
  assert.deepEqual([tree.at, branches.undoTarget(tree)], [0, null]);
  assert.equal(branches.redoTarget(tree), 1); // not the newest branch, but the one that was left
  for (const expected of [1, 2]) {
    tree = branches.moved(tree, branches.redoTarget(tree));
    assert.equal(tree.at, expected);
  }
  assert.equal(branches.redoTarget(tree), null);
  assert.equal(branches.redoTarget(branches.moved(branches.moved(tree, 3), 0)), 3);
});

test("branches survive the address next to their text, and others are refused", async () => {
  const tree = branches.moved(someTree(), 1);
  const packed = await branches.packBranches(tree);
  const found = await branches.unpackBranches(packed, "all work");
  assert.deepEqual([found.at, found.tip, branches.textAt(found, 2), branches.textAt(found, 3)], [1, 1, "all work and", "all play"]);
  assert.ok(Math.abs(found.nodes[2].logProbability - Math.log(0.25)) < 1e-4);
  assert.equal(await branches.packBranches(branches.newTree("all")), "");
  assert.equal(await branches.unpackBranches(packed, "another text"), null);
  for (const value of [[9, 0, []], [0, 0, [[1, 1, "a", 0]]], [0, 0, [[0, 1, "", 0]]], [0, 0, [[0, 1, "a", null]]], [0, 0, [7]], {}]) {
    assert.equal(await branches.unpackBranches(await packText(JSON.stringify(value)), "all"), null);
  }
  assert.equal(await branches.unpackBranches("%%%", "all"), null);
});

test("branches are read from the address, and stay without it if they are too long for it", async () => {
  const linked = new LinkedBranches();
  const tree = someTree();
  const packed = await branches.packBranches(tree);
  await linked.read(packed, "all play");
  assert.deepEqual([linked.tree.nodes.length, linked.isTooLong], [4, false]);
  await linked.read(null, "all play");
  assert.equal(linked.tree.nodes.length, 1);

  linked.tree = tree;
  assert.equal(linked.accept(packed, LONGEST_LINK), null);
  assert.ok(linked.isTooLong);
  await linked.read(null, "all work");
  assert.deepEqual([linked.tree.nodes.length, linked.tree.at], [4, 1]);
  await linked.read(null, "something else");
  assert.deepEqual([branches.textAt(linked.tree), linked.tree.nodes.length, linked.isTooLong], ["something else", 1, false]);
});

test("a text is cut at its copied passages, in characters", () => {
  const passages = [{ start: 1, end: 3 }, { start: 2, end: 5 }];
  const parts = (from, to) => copied.copiedParts([..."🙂bcdefg"], passages, from, to).map(({ text, passage }) => [text, passages.indexOf(passage)]);
  assert.deepEqual(parts(), [["🙂", -1], ["bc", 0], ["de", 1], ["fg", -1]]);
  assert.deepEqual(parts(0, 2), [["🙂", -1], ["b", 0]]);
  assert.deepEqual(parts(4, 7), [["e", 1], ["fg", -1]]);
  assert.deepEqual([copied.countCopied(passages), copied.countCopied(passages, 4), copied.countCopied([])], [4, 1, 0]);
  assert.deepEqual(copied.passagesAfter(passages, 3), [passages[1]]);
  assert.deepEqual([copied.passageAt(passages, 0, 1), copied.passageAt(passages, 4, 6)], [null, passages[1]]);
});

test("a run that trains is asked for its records, and for its files only when they can have changed", async () => {
  const asked = [];
  const api = {
    get: async (path) => {
      asked.push(path.split("/").at(-1));
      return { axes: [], series: {}, records: [], samples: [], cursor: "0.0.0", reset: false, more: false };
    },
  };
  const feed = new RunFeed(api, "run");
  const row = { state: "training", changed: 1, checkpoint: null, best_step: null, val_loss: null, problem: null };
  const after = async (change) => {
    asked.length = 0;
    await feed.refresh({ ...row, ...change });
    return asked.toSorted();
  };
  assert.deepEqual(await after({}), ["run", "samples", "series"]);
  assert.deepEqual(await after({}), []);
  assert.deepEqual(await after({ changed: 2 }), ["records", "samples"]);
  assert.deepEqual(await after({ changed: 3, val_loss: 2.5 }), ["records", "run", "samples"]);
  assert.deepEqual(await after({ changed: 4, val_loss: 2.5, checkpoint: 10 }), ["records", "run", "samples"]);
});

test("the models are asked for again when a run has begun, ended or saved a checkpoint", () => {
  const row = { run: "a", state: "training", val_loss: 2.5, problem: null };
  const version = modelsVersion([row], "1");
  assert.equal(modelsVersion([{ ...row, val_loss: 2.4, steps: 11 }], "1"), version);
  assert.notEqual(modelsVersion([row], "2"), version);
  for (const rows of [[], [row, { ...row, run: "b" }], [{ ...row, state: "finished" }]]) {
    assert.notEqual(modelsVersion(rows, "1"), version);
  }
});
