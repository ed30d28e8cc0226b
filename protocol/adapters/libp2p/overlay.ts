/** Changes members of objects that libp2p owns, for those who get the result only. */

/** `target` with `changes` on top. Everything else runs on `target` itself, private fields included. */
export function overlay<T extends object>(target: T, changes: Partial<T>): T {
  return new Proxy(target, {
    get(from, name) {
      if (name in changes) return Reflect.get(changes, name);
      const value: unknown = Reflect.get(from, name, from);
      return typeof value === 'function' ? value.bind(from) : value;
    },
  });
}
