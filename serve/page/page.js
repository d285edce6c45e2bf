"use strict";

/* The page of the assistant: asks the service that it came from, shows the answer as it is written, with
   sources and citations, and sends ratings. What people or models wrote is set as text, never as markup. */

const LANGUAGES = ["en", "zh", "ko", "ja"];
const TEXTS = {
  title: ["Patent assistant", "专利助手", "특허 도우미", "特許アシスタント"],
  language: ["Language of this page", "界面语言", "화면 언어", "表示言語"],
  fresh: ["New conversation", "新对话", "새 대화", "新しい会話"],
  welcome: ["What would you like to know?", "您想了解什么？", "무엇을 알고 싶으신가요?", "何をお調べしますか？"],
  advice: [
    "Answers name their sources. Open them and check before you rely on an answer.", "回答会注明来源。采用之前，请打开来源核对。",
    "답변에는 출처가 표시됩니다. 출처를 열어 확인한 뒤 활용하세요.", "回答には出典が付きます。ご利用の前に出典を開いてご確認ください。",
  ],
  adviceAlone: [
    "Answers come from the model alone and can be wrong. Check them before you rely on them.",
    "回答完全由模型生成，可能有误。采用之前，请自行核实。",
    "답변은 모델이 출처 없이 작성하므로 틀릴 수 있습니다. 확인한 뒤 활용하세요.",
    "回答はモデルのみによるもので、誤りがあり得ます。ご利用の前にご確認ください。",
  ],
  keys: [
    "Enter sends, Shift+Enter starts a new line.", "按 Enter 发送，按 Shift+Enter 换行。",
    "Enter 키로 보내고 Shift+Enter 키로 줄을 바꿉니다.", "Enter で送信、Shift+Enter で改行します。",
  ],
  question: ["Your question", "您的问题", "질문", "質問"],
  ask: ["Ask", "提问", "질문하기", "質問する"],
  stop: ["Stop", "停止", "중지", "停止"],
  again: ["Try again", "重新回答", "다시 시도", "再試行"],
  withSources: ["With sources", "附来源", "출처 사용", "出典を使う"],
  filters: ["Filters", "筛选", "필터", "絞り込み"],
  before: ["Published before", "公布日早于", "이 날짜 이전 공개", "この日より前に公開"],
  office: ["Office", "专利局", "특허청", "発行国"],
  languages: ["Language", "语种", "언어", "言語"],
  ipc: ["IPC class", "IPC 分类", "IPC 분류", "IPC 分類"],
  waiting: ["Preparing the answer…", "正在准备回答……", "답변을 준비하고 있습니다…", "回答を準備しています…"],
  outside: [
    "This does not look like a question of this assistant's field. Take the answer with care.",
    "该问题似乎不属于本助手的专业领域，请谨慎对待回答。",
    "이 도우미의 담당 분야가 아닌 질문으로 보입니다. 답변에 유의하세요.",
    "このアシスタントの担当分野の質問ではないようです。回答にはご注意ください。",
  ],
  sources: ["Sources", "来源", "출처", "出典"],
  showSource: ["Show the source", "查看来源", "출처 보기", "出典を表示"],
  "no-such-source": ["no such source", "无此来源", "없는 출처", "存在しない出典"],
  "no-such-article": ["no such article", "无此法条", "없는 조문", "存在しない条文"],
  foundArticle: ["This article exists", "该法条存在", "존재하는 조문입니다", "実在する条文です"],
  stopped: [
    "Stopped: the answer is incomplete.", "已停止，回答不完整。",
    "중지했습니다. 답변이 완전하지 않습니다.", "停止しました。回答は途中までです。",
  ],
  brokeOff: [
    "The answer broke off and is incomplete.", "回答中断，内容不完整。",
    "답변이 중간에 끊겨 완전하지 않습니다.", "回答が途中で切れたため、不完全です。",
  ],
  tooLong: [
    "The answer reached its greatest length and ends here.", "回答已达长度上限，到此为止。",
    "답변이 최대 길이에 이르러 여기서 끝납니다.", "回答が長さの上限に達したため、ここで終わります。",
  ],
  empty: ["The answer is empty.", "回答为空。", "답변이 비어 있습니다.", "回答が空です。"],
  unreachable: ["The service cannot be reached.", "无法连接服务。", "서비스에 연결할 수 없습니다.", "サービスに接続できません。"],
  failed: [
    "The service answered with status {}.", "服务返回状态码 {}。",
    "서비스가 상태 코드 {}(으)로 응답했습니다.", "サービスがステータス {} を返しました。",
  ],
  later: ["Try again in {} s.", "请在 {} 秒后重试。", "{}초 후에 다시 시도하세요.", "{} 秒後にもう一度お試しください。"],
  noEngine: [
    "The model cannot be reached at the moment.", "目前无法连接模型。",
    "지금은 모델에 연결할 수 없습니다.", "現在モデルに接続できません。",
  ],
  up: ["Good answer", "回答得好", "좋은 답변", "良い回答"],
  down: ["Bad answer", "回答不好", "나쁜 답변", "良くない回答"],
  improve: ["Improve this answer", "改进回答", "답변 고치기", "回答を直す"],
  correction: ["How the answer should read", "您认为正确的回答", "올바른 답변", "正しい回答"],
  save: ["Save", "保存", "저장", "保存"],
  cancel: ["Cancel", "取消", "취소", "キャンセル"],
  saved: ["Saved. Thank you.", "已保存，谢谢。", "저장했습니다. 고맙습니다.", "保存しました。ありがとうございます。"],
  keyNeeded: ["This service needs a key", "访问本服务需要密钥", "이 서비스를 쓰려면 키가 필요합니다", "このサービスにはキーが必要です"],
  keyWrong: ["This key is wrong.", "密钥不正确。", "키가 올바르지 않습니다.", "キーが正しくありません。"],
  key: ["Key", "密钥", "키", "キー"],
  goOn: ["Continue", "继续", "계속", "続ける"],
};

const at = (id) => document.getElementById(id);
const questionField = at("question");
let language = LANGUAGES.find((each) => each === navigator.language.split("-")[0]) ?? "en";
let key = sessionStorage.getItem("key");
let keyAsked = null; // the promise of the dialog while it is open
let running = null; // {turn, controller} while an answer is written
const turns = []; // what `addTurn` makes, in order

/** What is wrong, in lines: [a name of TEXTS and its value], or [null, the service's own words]. */
class Problem extends Error {
  constructor(...lines) {
    super();
    this.lines = lines;
  }
}

function main() {
  at("language").value = language;
  translate(document);
  at("language").addEventListener("change", (event) => {
    language = event.target.value;
    translate(document);
  });
  at("form").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  questionField.addEventListener("keydown", (event) => {
    // Safari ends a composition before the Enter that ended it; the code 229 still tells.
    const composing = event.isComposing || event.keyCode === 229;
    if (event.key !== "Enter" || event.shiftKey || composing) return;
    event.preventDefault();
    submit();
  });
  at("stop").addEventListener("click", () => running?.controller.abort());
  at("fresh").addEventListener("click", () => {
    forget(0);
    questionField.focus();
  });
  at("filters").addEventListener("input", countFilters);
  at("filters").addEventListener("focusout", ({ relatedTarget }) => {
    if (relatedTarget && !at("filters").contains(relatedTarget)) at("filters").open = false;
  });
  lookAround(true);
}

/* Texts */

function say(name, value = "") {
  return TEXTS[name][LANGUAGES.indexOf(language)].replace("{}", () => value);
}

/** Give an element a text of the table, in every language that is chosen from now on. */
function write(element, name, value = "") {
  element.dataset.text = name;
  element.dataset.value = value;
  element.textContent = say(name, value);
  return element;
}

function translate(root) {
  const all = (name) => root.querySelectorAll(`[data-${name}]`);
  for (const element of all("text")) write(element, element.dataset.text, element.dataset.value);
  for (const element of all("hint")) element.placeholder = say(element.dataset.hint);
  for (const element of all("tip")) element.title = say(element.dataset.tip);
  for (const element of all("label")) {
    element.title = say(element.dataset.label);
    element.setAttribute("aria-label", element.title);
  }
  if (root !== document) return;
  document.title = say("title");
  document.documentElement.lang = language === "zh" ? "zh-Hans" : language;
}

/** A copy of a template, in the chosen language. */
function copied(id) {
  const copy = at(id).content.firstElementChild.cloneNode(true);
  translate(copy);
  return copy;
}

function make(tag, className, content = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = content;
  return element;
}

/** The lines of a Problem, to be shown. */
function shownLines(lines) {
  return lines.map(([name, value]) => (name ? write(make("span", ""), name, value) : make("span", "", value)));
}

/** A text in pieces, [text, its span or null]. Spans count code points, as Python does; a span that overlaps
    the one before it is left out. */
function pieces(whole, spans) {
  const characters = Array.from(whole);
  const found = [];
  let place = 0;
  for (const span of spans) {
    if (span.start < place || span.end > characters.length) continue;
    found.push([characters.slice(place, span.start).join(""), null]);
    found.push([characters.slice(span.start, span.end).join(""), span]);
    place = span.end;
  }
  return [...found, [characters.slice(place).join(""), null]];
}

/* The service */

/** A response of the service; asks for the key as often as it is missing or wrong. Throws a Problem, or an
    AbortError. */
async function request(path, body, signal) {
  for (;;) {
    const sent = key;
    const headers = { "Content-Type": "application/json" };
    // A header holds bytes: those of the key in UTF-8.
    if (sent) headers.Authorization = `Bearer ${String.fromCharCode(...new TextEncoder().encode(sent))}`;
    const post = body && { method: "POST", body: JSON.stringify(body) };
    const response = await fetch(path, { headers, signal, ...post }).catch((error) => {
      throw error.name === "AbortError" ? error : new Problem(["unreachable"]);
    });
    if (response.status !== 401) {
      if (sent) sessionStorage.setItem("key", sent);
      return response;
    }
    if (sent !== key) continue; // another request has asked meanwhile
    const given = await (keyAsked ??= askForKey(sent !== null));
    if (!given) throw new Problem(["keyNeeded"]);
  }
}

async function askForKey(wrong) {
  const dialog = at("key-dialog");
  at("key-wrong").hidden = !wrong;
  at("key").value = dialog.returnValue = "";
  dialog.showModal();
  await new Promise((closed) => dialog.addEventListener("close", closed, { once: true }));
  keyAsked = null;
  key = dialog.returnValue === "given" ? at("key").value.trim() : null;
  return Boolean(key);
}

/** The JSON of a response; a Problem if it is an error. */
async function answerOf(response) {
  const answer = await response.json().catch(() => null);
  if (response.ok && answer) return answer;
  const wait = response.headers.get("Retry-After");
  const said = answer?.error?.message;
  throw new Problem(said ? [null, said] : ["failed", response.status], ...(wait ? [["later", wait]] : []));
}

/** The events of a stream of server-sent events, until its end mark. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ; ) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

/** Show whether there are an engine and an index, and the model's name. */
async function lookAround(first = false) {
  try {
    const health = await (await fetch("health")).json();
    at("down").hidden = health.engines > 0;
    for (const part of document.querySelectorAll("[data-index]")) part.hidden = !health.index;
    write(at("advice"), health.index ? "advice" : "adviceAlone");
    if (at("model").textContent || (health.key && !key && !first)) return; // the key is asked for once
    const models = await answerOf(await request("v1/models"));
    at("model").textContent = at("model").title = models.data[0].id;
  } catch {
    // A question will say what is wrong.
  }
}

/* The conversation */

function submit() {
  const question = questionField.value.trim();
  if (!question || running) return;
  questionField.value = "";
  at("filters").open = false;
  ask(question);
}

/** Ask a question after the turns that there are. */
async function ask(question) {
  const messages = [];
  for (const earlier of turns.filter((each) => each.text).slice(-20)) { // the service takes 100 messages
    messages.push({ role: "user", content: earlier.question }, { role: "assistant", content: earlier.text });
  }
  messages.push({ role: "user", content: question });
  const turn = addTurn(question);
  const controller = new AbortController();
  const own = (running = { turn, controller });
  showState();
  try {
    const body = { messages, stream: true, retrieval: retrieval() };
    const response = await request("v1/chat/completions", body, controller.signal);
    if (!response.ok) await answerOf(response);
    for await (const event of events(response.body)) take(turn, event);
    if (!turn.finish) throw new Problem();
  } catch (error) {
    const lines = error instanceof Problem ? error.lines : [];
    if (controller.signal.aborted) showProblem(turn, ["stopped"]);
    else showProblem(turn, ...(turn.text || !lines.length ? [["brokeOff"]] : []), ...lines);
    controller.abort();
  }
  if (running !== own) return; // a new conversation, or another try
  keepAtEnd(() => end(turn));
  running = null;
  showState();
  lookAround();
}

/** What the filters say; false for no sources. */
function retrieval() {
  if (!at("with-sources").checked) return false;
  return Object.fromEntries(filters().map((field) => [field.name, field.value.trim()]));
}

function filters() {
  return [...at("filters").querySelectorAll("input")].filter((field) => field.value.trim());
}

function countFilters() {
  at("filter-count").textContent = filters().length ? `(${filters().length})` : "";
}

/** Take away this turn and those after it. */
function forget(first) {
  if (running && turns.indexOf(running.turn) >= first) {
    running.controller.abort();
    running = null;
  }
  for (const turn of turns.splice(first)) turn.element.remove();
  showState();
}

function addTurn(question) {
  const element = copied("turn");
  const part = (selector) => element.querySelector(selector);
  const rating = { rating: "none", correction: null };
  const turn = { question, element, part, text: "", id: null, finish: null, rating, rated: Promise.resolve() };
  part(".question").textContent = question;
  for (const thumb of ["up", "down"]) {
    const toggle = ({ rating }) => ({ rating: rating === thumb ? "none" : thumb });
    part(`.${thumb}`).addEventListener("click", () => rate(turn, toggle));
  }
  part(".improve").addEventListener("click", () => showCorrection(turn, part(".correction").hidden));
  part(".cancel").addEventListener("click", () => showCorrection(turn, false));
  part(".correction").addEventListener("submit", (event) => {
    event.preventDefault();
    correct(turn);
  });
  part(".again").addEventListener("click", () => {
    forget(turns.indexOf(turn));
    ask(question);
  });
  turns.push(turn);
  at("turns").append(element);
  at("heard").textContent = say("waiting");
  window.scrollTo(0, document.documentElement.scrollHeight);
  return turn;
}

/** Show an event of the stream. */
function take(turn, event) {
  if (event.error) throw new Problem([null, event.error.message]);
  const [choice] = event.choices;
  turn.finish = choice.finish_reason ?? turn.finish;
  keepAtEnd(() => {
    if (event.sources) showFound(turn, event);
    if (choice.delta.content) {
      turn.part(".waiting").hidden = true;
      turn.part(".answer").classList.add("writing");
      turn.part(".answer").append(choice.delta.content);
      turn.text += choice.delta.content;
    }
    if (event.citations) cite(turn, event.citations);
  });
}

/** Show what the first event has: sources, and what the gate says. */
function showFound(turn, { id, sources, gate }) {
  turn.id = gate?.mode === "refuse" && !gate.accepted ? null : id; // a refusal cannot be rated
  turn.part(".note").hidden = !gate || gate.accepted || gate.mode === "refuse";
  turn.part(".sources").hidden = !sources.length;
  turn.part(".sources ol").replaceChildren(...sources.map(sourceItem));
}

function sourceItem({ number, name, title, date, language, text, found }) {
  const item = copied("source");
  const part = (selector) => item.querySelector(selector);
  part(".number").textContent = `[${number}]`;
  part(".name").textContent = name;
  part(".title").textContent = title && !name.startsWith(title) ? title : ""; // a law's name has its title
  part("time").textContent = date ?? "";
  part(".passage").lang = part(".title").lang = language ?? "";
  for (const [piece, span] of pieces(text, found.map(([start, end]) => ({ start, end })))) {
    part(".passage").append(span ? make("mark", "", piece) : piece);
  }
  return item;
}

/** Make the citations of an answer buttons that open their sources; mark those that are wrong. */
function cite(turn, citations) {
  const answer = turn.part(".answer");
  answer.replaceChildren();
  for (const [piece, citation] of pieces(turn.text, citations)) {
    answer.append(citation ? citationMark(turn, piece, citation) : piece);
    if (citation?.problem) answer.append(write(make("small", "reason"), citation.problem));
  }
  translate(answer);
}

function citationMark(turn, piece, { problem, sources }) {
  const opens = sources.length > 0;
  const mark = make(opens ? "button" : "span", problem ? "wrong" : opens ? "cite" : "found", piece);
  mark.dataset.tip = problem ?? (opens ? "showSource" : "foundArticle");
  if (opens) {
    mark.type = "button";
    mark.addEventListener("click", () => openSources(turn, sources));
  }
  return mark;
}

function openSources(turn, numbers) {
  const all = turn.element.querySelectorAll(".sources details");
  for (const number of numbers) all[number - 1].open = true;
  all[numbers[0] - 1].scrollIntoView({ block: "nearest" });
  all[numbers[0] - 1].querySelector("summary").focus();
}

function showProblem(turn, ...lines) {
  turn.part(".problem").append(...shownLines(lines));
  turn.part(".problem").hidden = false;
}

/** Show that an answer has ended, well or not. */
function end(turn) {
  turn.part(".waiting").hidden = true;
  turn.part(".answer").classList.remove("writing");
  if (turn.finish === "length") showProblem(turn, ["tooLong"]);
  if (turn.finish && !turn.text) showProblem(turn, ["empty"]);
  for (const name of [".up", ".down", ".improve"]) turn.part(name).hidden = !turn.text || !turn.id;
  turn.part(".tools").hidden = false;
  at("heard").textContent = turn.text;
}

/** Show what can be done now; where the focus would be lost, the keyboard goes on at the next button. */
function showState() {
  const focused = document.activeElement;
  at("welcome").hidden = turns.length > 0;
  at("ask").disabled = running !== null;
  at("stop").hidden = running === null;
  if (running && focused !== questionField) at("stop").focus();
  if (!running && focused === at("stop")) at("ask").focus();
}

/** Change the page; a reader who is at its end stays there. */
function keepAtEnd(change) {
  const height = () => document.documentElement.scrollHeight;
  const atEnd = window.innerHeight + window.scrollY > height() - 30;
  change();
  if (atEnd) window.scrollTo(0, height());
}

/* Ratings */

/** Save a change of a turn's rating, after those before it; says whether it is saved. */
function rate(turn, change) {
  const said = turn.part(".said");
  turn.rated = turn.rated.then(async () => {
    const wanted = { ...turn.rating, ...change(turn.rating) };
    said.replaceChildren();
    try {
      await answerOf(await request("v1/ratings", { answer: turn.id, ...wanted }));
    } catch (error) {
      said.replaceChildren(...shownLines(error.lines));
      return false;
    }
    turn.rating = wanted;
    for (const thumb of ["up", "down"]) {
      turn.part(`.${thumb}`).setAttribute("aria-pressed", String(wanted.rating === thumb));
    }
    said.replaceChildren(...shownLines([["saved"]]));
    return true;
  });
  return turn.rated;
}

function showCorrection(turn, shown) {
  const field = turn.part(".correction textarea");
  turn.part(".correction").hidden = !shown;
  turn.part(".improve").setAttribute("aria-expanded", String(shown));
  if (shown) field.value = turn.rating.correction ?? turn.text;
  (shown ? field : turn.part(".improve")).focus();
}

/** Save a correction; one that changes nothing is none. */
async function correct(turn) {
  const given = turn.part(".correction textarea").value.trim();
  const correction = given === turn.text.trim() ? null : given;
  if (await rate(turn, () => ({ correction }))) showCorrection(turn, false);
}

main();
