// The lines and zones of one source while they are drawn: what is on the screen, what the server has, what is wrong.
//
// A shape is {kind: "lines" | "zones" | "conditions", rule, good, fault}: the rule as it is drawn, as a rules file has
// it (docs/rules.md); the one that the server took last, or null; and what is wrong with the one that is drawn, or "".
// One that is wrong holds up no other: the server has the good one in its place until it is mended. It is tried again
// whenever something changes, for two may be wrong together, as by one name.

const KINDS = ["lines", "zones", "conditions"];
const WORDS = { lines: "line", zones: "zone", conditions: "condition" };

/** Rules by kind, as the server takes them. */
function byKind(pairs) {
  const made = {};
  for (const [kind, rule] of pairs) (made[kind] ??= []).push(rule);
  return made;
}

/** Whether something that was kept looks like a rule. */
function isRule(rule) {
  const isPoint = (point) => Array.isArray(point) && point.length === 2 && point.every(Number.isFinite);
  return typeof rule?.name === "string" && (rule.points === undefined || (Array.isArray(rule.points) && rule.points.every(isPoint)));
}

/** [kind, rule] of all rules that something contains, as a rules file has them. */
function rulesIn(data) {
  return KINDS.flatMap((kind) => (Array.isArray(data?.[kind]) ? data[kind] : []).filter(isRule).map((rule) => [kind, rule]));
}

export class RuleSet {
  /**
   * @param save takes rules by kind, and gives a promise of {faults: {name: text}}; it rejects with an error whose `rule`
   *   is the name of the one that is wrong, if it is about one.
   * @param on {changed() what is drawn has changed, or what is known of it; problem(text) of nothing in particular}
   */
  constructor(save, on) {
    this.save = save;
    this.on = on;
    this.shapes = [];
    this.fixed = [];
    this.changes = 0;
  }

  /** Take what there is: {drawn, fixed, faults}. */
  load({ drawn, fixed = {}, faults = {} }) {
    this.shapes = rulesIn(drawn).map(([kind, rule]) => ({ kind, rule, good: rule, fault: faults[rule.name] ?? "", at: 0 }));
    this.fixed = rulesIn(fixed).map(([kind, rule]) => ({ kind, rule }));
    this.on.changed();
  }

  /** Names of all rules. */
  get names() {
    return [...this.fixed, ...this.shapes].map(({ rule }) => rule.name);
  }

  /** What is drawn, wrong or not: what a browser remembers. */
  get drawn() {
    return byKind(this.shapes.map(({ kind, rule }) => [kind, rule]));
  }

  /** A new shape, under a name that no other one has. */
  add(kind, points) {
    let number = 1;
    while (this.names.includes(`${WORDS[kind]} ${number}`)) number += 1;
    const shape = { kind, rule: { name: `${WORDS[kind]} ${number}`, points }, good: null, fault: "", at: 0 };
    this.shapes.push(shape);
    this.touch(shape);
    return shape;
  }

  /** Change fields of a shape's rule; those that are undefined are left out. */
  change(shape, fields) {
    const merged = Object.entries({ ...shape.rule, ...fields }).filter(([, value]) => value !== undefined);
    shape.rule = Object.fromEntries(merged);
    this.touch(shape);
  }

  remove(shape) {
    this.shapes = this.shapes.filter((other) => other !== shape);
    return this.retry();
  }

  touch(shape) {
    shape.fault = "";
    shape.at = ++this.changes;
    return this.retry();
  }

  /** Send all that is drawn, and what was wrong too: something has changed. */
  retry() {
    for (const shape of this.shapes) shape.again = true;
    this.on.changed();
    return this.send();
  }

  /** Have the server take what is drawn. One message at a time; what changes meanwhile goes with the next one. */
  async send() {
    this.waiting = true;
    if (this.sending) return this.sending;
    this.sending = this.sendAll();
    try {
      await this.sending;
    } finally {
      this.sending = null;
    }
  }

  async sendAll() {
    while (this.waiting) {
      this.waiting = false;
      const sent = this.shapes
        .map((shape) => ({ shape, rule: shape.fault && !shape.again ? shape.good : shape.rule }))
        .filter(({ rule }) => rule);
      try {
        const { faults = {} } = (await this.save(byKind(sent.map(({ shape, rule }) => [shape.kind, rule])))) ?? {};
        this.accept(sent, faults);
      } catch (error) {
        this.blame(sent, error);
      }
    }
  }

  accept(sent, faults) {
    for (const { shape, rule } of sent) {
      shape.good = rule;
      if (shape.rule === rule) Object.assign(shape, { fault: faults[rule.name] ?? "", again: false });
    }
    this.on.problem("");
    this.on.changed();
  }

  /**
   * Put what is wrong beside its shape, and send the others. Of two of one name it is the one that was wrong before and
   * is tried again, else the one that was changed last, and not what stands in for one that is wrong.
   */
  blame(sent, error) {
    const suspect = ({ shape, rule }) => (shape.rule !== rule ? 0 : shape.fault ? 2 : 1);
    const named = sent.filter(({ rule }) => rule.name === error.rule);
    named.sort((a, b) => suspect(b) - suspect(a) || b.shape.at - a.shape.at);
    if (!named.length) return this.on.problem(error.message, error);
    const { shape, rule } = named[0];
    if (shape.good === rule) shape.good = null; // it was good before
    if (shape.rule === rule) Object.assign(shape, { fault: error.message, again: false }); // or it has changed meanwhile
    this.waiting = true;
    this.on.changed();
  }
}
