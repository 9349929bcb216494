/** `--metrics`: a worker's metrics over HTTP, `GET /metrics` and nothing else. */
import { once } from 'node:events';
import type { StatsFs } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { KofnError, type ErrorCode } from '@kofn/core';
import type { ListenAddress } from '@kofn/wire';
import { processMetrics } from '@kofn/wire/metrics';
import { Gauge, Registry } from 'prom-client';

export interface MetricsEndpoint extends AsyncDisposable {
  /** `host:port` as bound. */
  readonly address: string;
}

/** Nobody needs more of them, and each is held no longer. */
const MAX_CONNECTIONS = 32;
const REQUEST_MS = 5_000;

/**
 * Serves `worker`, what Node tells of the process, and how full the disk of `dataDir` is, until disposed. Throws ADDRESS_IN_USE,
 * INVALID_ARGUMENT (an address that this machine does not have), UNAVAILABLE.
 */
export async function serveMetrics(
  { host, port }: ListenAddress,
  worker: Registry,
  dataDir: string,
): Promise<MetricsEndpoint> {
  const registry = endpointMetrics(worker, dataDir);
  const limits = { requestTimeout: REQUEST_MS, headersTimeout: REQUEST_MS, connectionsCheckingInterval: REQUEST_MS };
  const server = createServer(limits, (request, response) => {
    const path = request.url?.split('?', 1)[0];
    if (path !== '/metrics') return void response.writeHead(404).end('GET /metrics\n');
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      return void response.writeHead(405, { allow: 'GET, HEAD' }).end();
    }
    registry.metrics().then(
      text => response.writeHead(200, { 'content-type': registry.contentType }).end(text),
      (error: unknown) => response.writeHead(500).end(`${KofnError.from(error).message}\n`),
    );
  });
  server.maxConnections = MAX_CONNECTIONS;
  try {
    server.listen(port, host);
    await once(server, 'listening');
  } catch (error) {
    throw notBound(`${host}:${port}`, error as NodeJS.ErrnoException);
  }
  const { address, family, port: bound } = server.address() as AddressInfo;
  return {
    address: `${family === 'IPv6' ? `[${address}]` : address}:${bound}`,
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

/** All that is served. */
export function endpointMetrics(worker: Registry, dataDir: string): Registry {
  return Registry.merge([worker, diskMetrics(dataDir), processMetrics()]);
}

function notBound(address: string, error: NodeJS.ErrnoException): KofnError {
  const codes: Readonly<Record<string, ErrorCode>> = {
    EADDRINUSE: 'ADDRESS_IN_USE',
    EADDRNOTAVAIL: 'INVALID_ARGUMENT',
    ENOTFOUND: 'INVALID_ARGUMENT',
  };
  const message = `--metrics ${address}: ${error.message}; choose another address or port`;
  return new KofnError(codes[error.code ?? ''] ?? 'UNAVAILABLE', message, { cause: error });
}

function diskMetrics(dataDir: string): Registry {
  const registry = new Registry();
  const gauge = (name: string, help: string, of: (disk: StatsFs) => number) =>
    new Gauge({
      name,
      help,
      registers: [registry],
      async collect() {
        this.set(of(await statfs(dataDir)));
      },
    });
  gauge(
    'kofn_worker_disk_available_bytes',
    'What is free on the disk that has the shards, whoever fills it',
    ({ bavail, bsize }) => bavail * bsize,
  );
  gauge('kofn_worker_disk_size_bytes', 'Size of the disk that has the shards', ({ blocks, bsize }) => blocks * bsize);
  return registry;
}
