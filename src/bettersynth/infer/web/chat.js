"use strict";
const zh = {
  "Picture": "图像", "Answer": "回答", "Think first": "先思考", "Seed": "种子", "Size": "尺寸", "Key": "密钥",
  "Send": "发送", "New conversation": "新对话", "Ask, or describe a picture…": "提问，或描述一张图像…",
  "thinking": "思考", "decided by": "决定方式", "waiting…": "等待中…",
};
const t = (text) => (navigator.language.startsWith("zh") && zh[text]) || text;
const at = (id) => document.getElementById(id);
const messages = [];

for (const item of document.querySelectorAll("[data-t]")) item.textContent = t(item.dataset.t);
at("text").placeholder = t("Ask, or describe a picture…");

function headers() {
  const found = { "Content-Type": "application/json" };
  if (at("key").value) found.Authorization = "Bearer " + at("key").value;
  return found;
}

function turn(kind) {
  const box = document.createElement("div");
  box.className = "turn " + kind;
  at("talk").append(box);
  box.scrollIntoView();
  return box;
}

function addText(box, text, kind) {
  const line = document.createElement("div");
  if (kind) line.className = kind;
  line.textContent = text;
  box.append(line);
}

function addPicture(box, url) {
  const picture = document.createElement("img");
  if (url.startsWith("data:image/")) picture.src = url;
  picture.alt = "";
  box.append(picture);
}

function readFile(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

function show(box, message) {
  const order = message.bettersynth.order;
  for (const piece of order) {
    if (piece.type === "image") addPicture(box, message.images[piece.index].image_url.url);
    else addText(box, (piece.type === "thought" ? t("thinking") + ": " : "") + piece.text, piece.type === "thought" ? "why" : "");
  }
  const why = order.map((piece) => `${piece.type}: ${piece.how} (${piece.reason})`).join(" · ");
  addText(box, `${t("decided by")} ${why} · ${t("Seed")} ${message.bettersynth.seed}`, "why");
}

async function send(event) {
  event.preventDefault();
  const text = at("text").value.trim();
  const pictures = await Promise.all([...at("file").files].map(readFile));
  if (!text && !pictures.length) return;
  const content = pictures.map((url) => ({ type: "image_url", image_url: { url } }));
  if (text) content.push({ type: "text", text });
  const asked = turn("user");
  pictures.forEach((url) => addPicture(asked, url));
  if (text) addText(asked, text);
  messages.push({ role: "user", content });
  at("text").value = "";
  at("file").value = "";
  const box = turn("model");
  addText(box, t("waiting…"), "why");
  const body = { messages, output: at("output").value, think: at("think").checked };
  if (at("seed").value) body.seed = Number(at("seed").value);
  if (at("size").value) body.size = at("size").value;
  at("send").disabled = true;
  try {
    const reply = await fetch("/v1/chat/completions", { method: "POST", headers: headers(), body: JSON.stringify(body) });
    const answer = await reply.json();
    if (!reply.ok) throw new Error(answer.error.message);
    const message = answer.choices[0].message;
    box.replaceChildren();
    show(box, message);
    messages.push({ role: "assistant", content: message.content, images: message.images });
  } catch (error) {
    messages.pop();
    box.replaceChildren();
    box.classList.add("error");
    addText(box, String(error.message || error));
  } finally {
    at("send").disabled = false;
    at("text").focus();
  }
}

at("form").addEventListener("submit", send);
at("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
});
at("new").addEventListener("click", () => { messages.length = 0; at("talk").replaceChildren(); });
fetch("/v1/models", { headers: headers() }).then((reply) => reply.json()).then((found) => {
  if (found.data) at("model").textContent = found.data[0].id;
});
