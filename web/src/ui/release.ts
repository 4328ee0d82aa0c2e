// Preact keeps more than is on the screen. When a component paints itself anew, the
// properties of the element around it still hold what stood there when that element was
// made, with all its children; and through children that had not to be painted these hold
// every painting since. A page that is only looked at grows by that, for as long as it is
// open. So what a component has replaced lets go of its children here.
//
// The names are those that Preact's build gives to its own fields; they are the same in
// all its versions, since its other packages use them too. `make perf-console` fails when
// this does not help any more.

import { options, type VNode } from "preact";

interface Component {
  /** What is on the screen of it. */
  __v?: Painted;
}

interface Painted extends VNode {
  __k: unknown;
  __c: Component | null;
}

const replaced = new WeakMap<VNode, Painted>();

const { vnode: made, diffed } = options;

options.vnode = (vnode) => {
  made?.(vnode);
  // One that has a component already is the copy with which a component paints itself anew.
  const before = (vnode as Painted).__c?.__v;
  if (before && before !== vnode) replaced.set(vnode, before);
};

options.diffed = (vnode) => {
  diffed?.(vnode);
  const before = replaced.get(vnode);
  if (!before) return;
  replaced.delete(vnode);
  before.__k = null;
};
