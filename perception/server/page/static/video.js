// The Video tab: a file goes up as a job, the bar follows it, the results come back as files. The browser remembers
// the job: the page may be reloaded meanwhile.

import { onFile } from "./drop.js";
import { address, defaults, fileSize, keep, kept, options, query, request, settings } from "./page.js";
import { jobDone, jobProgress, uploadProgress } from "./progress.js";

const ASK_MS = 500;
const MOST_LOST = 120; // questions without an answer in a row
const GONE = [404, 422]; // the server has no such job (any more)

export function mount(element, known) {
  defaults({ model: known.default, hidden: new Set() });
  new VideoTab(element, known);
}

class VideoTab {
  constructor(element, known) {
    this.known = known;
    const find = (name) => element.querySelector(`.pv-${name}`);
    this.parts = Object.fromEntries(
      ["drop", "file", "go", "cancel", "note", "progress", "result", "player", "get-video", "get-jsonl"].map((name) => [name, find(name)]),
    );
    onFile(this.parts.drop, this.parts.file, (file) => this.choose(file));
    this.parts.go.onclick = () => this.run();
    this.parts.cancel.onclick = () => this.cancel();
    this.resume();
  }

  choose(file) {
    if (this.running) return;
    this.file = file;
    this.parts.drop.querySelector("b").textContent = file.name;
    this.parts.go.disabled = false;
    this.note(fileSize(file.size));
  }

  async run() {
    this.busy(true);
    this.parts.result.hidden = true;
    this.parts.player.removeAttribute("src");
    try {
      const job = await this.upload();
      this.job = job.id;
      keep("job", job.id);
      await this.follow();
    } catch (error) {
      this.note(error.message);
    } finally {
      this.busy(false);
    }
  }

  /** Take up the job that was there before the page was reloaded, whatever has become of it. */
  async resume() {
    this.job = kept("job");
    if (!this.job) return;
    this.busy(true);
    try {
      await this.follow();
    } catch (error) {
      this.note(GONE.includes(error.status) ? "" : error.message);
    } finally {
      this.busy(false);
    }
  }

  /** Send the file; the first quarter of the bar is its upload. fetch() cannot tell how far an upload is. */
  upload() {
    const model = this.known.models[settings.model];
    const chosen = query({ ...options(model), name: this.file.name, model: settings.model });
    return new Promise((done, failed) => {
      const call = new XMLHttpRequest();
      this.call = call;
      call.open("POST", address(`v1/jobs?${chosen}`));
      call.setRequestHeader("Content-Type", "application/octet-stream");
      call.responseType = "json";
      call.upload.onprogress = ({ loaded, total }) => this.progress(uploadProgress(loaded, total));
      call.onload = () => {
        if (call.status < 300 && call.response) return done(call.response);
        const retry = call.getResponseHeader("Retry-After");
        const text = call.response?.error ?? `The server answered ${call.status}.`;
        failed(new Error(retry ? `${text} (again in ${retry} s)` : text));
      };
      call.onerror = () => failed(new Error("The connection was lost during the upload."));
      call.onabort = () => failed(new Error("Cancelled."));
      call.send(this.file);
    });
  }

  async follow() {
    let lost = 0;
    for (;;) {
      if (!this.job) throw new Error("Cancelled.");
      let job;
      try {
        job = await (await request(`v1/jobs/${encodeURIComponent(this.job)}`)).json();
        lost = 0;
      } catch (error) {
        if (GONE.includes(error.status)) this.forget();
        if (!this.job || ++lost > MOST_LOST) throw error;
        this.note(`${error.message} The job goes on there; asking again …`);
        await new Promise((done) => setTimeout(done, 2 * ASK_MS));
        continue;
      }
      if (!this.job) throw new Error("Cancelled."); // while the answer was on its way: its files are gone
      if (job.state === "failed") {
        this.forget();
        throw new Error(job.error ?? "The job failed.");
      }
      if (job.state === "done") return this.finished(job);
      this.progress(jobProgress(job));
      await new Promise((done) => setTimeout(done, ASK_MS));
    }
  }

  finished(job) {
    const { parts } = this;
    this.job = null;
    this.bar(1);
    this.note(jobDone(job));
    const at = (kind) => address(job.results[kind]).href;
    parts.player.src = at("video");
    parts["get-video"].href = at("video");
    parts["get-jsonl"].href = at("jsonl");
    parts.result.hidden = false;
  }

  async cancel() {
    this.call?.abort();
    const job = this.job;
    this.forget();
    if (job) await request(`v1/jobs/${job}`, { method: "DELETE" }).catch((error) => this.note(error.message));
  }

  forget() {
    this.job = null;
    keep("job", null);
  }

  busy(running) {
    this.running = running;
    this.parts.go.disabled = running || !this.file;
    this.parts.cancel.hidden = !running;
    this.parts.progress.hidden = !running;
    this.parts.file.disabled = running;
    if (!running) this.call = null;
  }

  progress({ part, text }) {
    this.bar(part);
    this.note(text);
  }

  bar(part) {
    if (part === undefined) this.parts.progress.removeAttribute("value");
    else this.parts.progress.value = part;
  }

  note(text) {
    this.parts.note.textContent = text;
  }
}
