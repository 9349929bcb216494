/** Which methods a path takes, for those who ask with another. */
import type { FastifyInstance } from 'fastify';

/** Follows the routes that `app` is given from now on; returns the methods of a path, none where it is none. `*` is all of the server. */
export function followMethods(app: FastifyInstance): (path: string) => string[] {
  const routes: { readonly parts: readonly string[]; readonly methods: readonly string[] }[] = [];
  app.addHook('onRoute', ({ url, method }) => {
    routes.push({ parts: url.split('/'), methods: [method].flat() });
  });
  return path => {
    const parts = path.split('/');
    const fits = (of: readonly string[]) =>
      of.length === parts.length && of.every((part, i) => (part.startsWith(':') ? parts[i] !== '' : part === parts[i]));
    const methods = routes.filter(route => path === '*' || fits(route.parts)).flatMap(route => route.methods);
    return methods.length === 0 ? [] : [...new Set([...methods, 'OPTIONS'])];
  };
}
