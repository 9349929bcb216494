// Which way imports point, types included: between packages, and between the rooms (folders) of one. `npm run lint` holds them to it.

/** What each package may import of the others. */
const BELOW = {
  core: [],
  dashboard: [],
  graph: ['core'],
  encoder: ['core'],
  engine: ['core'],
  wire: ['core'],
  worker: ['core', 'graph', 'engine', 'wire'],
  master: ['core', 'graph', 'encoder', 'engine', 'wire', 'dashboard'],
  cli: ['core', 'graph', 'encoder', 'engine', 'wire', 'worker', 'master'],
};
const packages = Object.entries(BELOW).map(([name, below]) => ({
  name: `${name}-imports`,
  comment: `packages/${name} may import ${below.join(', ') || 'no other package of ours'}`,
  severity: 'error',
  from: { path: `^packages/${name}/src/` },
  to: { path: '^packages/', pathNot: `^packages/(${[name, ...below].join('|')})/` },
}));

export default {
  forbidden: [
    ...packages,
    {
      name: 'no-circle',
      comment: 'a file imports itself, through others',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    {
      name: 'rooms-one-way',
      comment: 'two rooms of a package import each other',
      severity: 'error',
      scope: 'folder',
      from: {},
      to: { circular: true },
    },
    {
      name: 'no-unknown',
      comment: 'an import of ours that leads nowhere, so that no rule sees it',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true, path: '^(\\.|@kofn/|kofn)', pathNot: '\\?url$' },
    },
  ],
  options: {
    tsPreCompilationDeps: true,
    includeOnly: '^(packages/[^/]+/(dist/)?src|@kofn|\\.)',
    doNotFollow: { path: '/dist/' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['types', 'import', 'default'] },
  },
};
