// A conversation as a tree: messages by id, the children of each, and the path that is read.

export class Tree {
  constructor(messages = [], leaf = null) {
    this.byId = new Map();
    this.children = new Map([[null, []]]);
    for (const message of messages) this.add(message);
    this.leaf = leaf;
  }

  add(message) {
    this.byId.set(message.id, message);
    this.children.set(message.id, []);
    (this.children.get(message.parent) ?? this.children.get(null)).push(message.id);
    this.leaf = message.id;
  }

  /** The messages from the first one to another, the leaf unless told. */
  path(to = this.leaf) {
    const found = [];
    for (let at = this.byId.get(to); at; at = this.byId.get(at.parent)) found.push(at);
    return found.reverse();
  }

  siblings(id) {
    return this.children.get(this.byId.get(id).parent ?? null);
  }

  /** Where reading goes on from a message: the newest of everything that follows it. */
  end(id) {
    let at = id;
    while (this.children.get(at)?.length) at = this.children.get(at).at(-1);
    return at;
  }

  /** How many ends there are. */
  get branches() {
    return [...this.children].filter(([id, below]) => id !== null && !below.length).length;
  }
}
