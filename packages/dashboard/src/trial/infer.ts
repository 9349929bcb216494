/** `POST /v2/models/{model}/infer` of the Open Inference Protocol, with its binary tensor data extension both ways. */

export interface BinaryTensor {
  readonly name: string;
  readonly datatype: string;
  readonly shape: readonly number[];
  /** Little-endian, as they lie. */
  readonly bytes: Uint8Array;
}

export interface InferCall {
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
}

export interface InferAnswer {
  readonly id: string;
  readonly outputs: readonly { readonly name: string; readonly shape: readonly number[]; readonly values: number[] }[];
}

const HEADER_LENGTH = 'inference-header-content-length';

export function inferCall(
  model: { readonly name: string; readonly version?: string | undefined },
  { id, input, outputs }: { id: string; input: BinaryTensor; outputs: readonly string[] },
): InferCall {
  const { name, datatype, shape, bytes } = input;
  const header = new TextEncoder().encode(
    JSON.stringify({
      id,
      inputs: [{ name, datatype, shape, parameters: { binary_data_size: bytes.byteLength } }],
      outputs: outputs.map(output => ({ name: output, parameters: { binary_data: true } })),
    }),
  );
  const body = new Uint8Array(header.byteLength + bytes.byteLength);
  body.set(header);
  body.set(bytes, header.byteLength);
  const version = model.version === undefined ? '' : `/versions/${encodeURIComponent(model.version)}`;
  return {
    path: `v2/models/${encodeURIComponent(model.name)}${version}/infer`,
    headers: { 'content-type': 'application/octet-stream', [HEADER_LENGTH]: String(header.byteLength) },
    body,
  };
}

/** Throws an Error when `body` is no answer. */
export function inferAnswer(headers: Pick<Headers, 'get'>, body: ArrayBuffer): InferAnswer {
  const said = headers.get(HEADER_LENGTH);
  const length = said === null ? body.byteLength : Number(said);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(body, 0, length))) as {
    id?: string;
    outputs: { name: string; datatype: string; shape: number[]; data?: number[]; parameters?: Parameters }[];
  };
  let offset = length;
  const outputs = header.outputs.map(({ name, datatype, shape, data, parameters }) => {
    const size = parameters?.binary_data_size;
    if (size === undefined) return { name, shape, values: (data ?? []).flat(Infinity as 1) };
    const values = numbersIn(new DataView(body, offset, size), datatype);
    offset += size;
    return { name, shape, values };
  });
  return { id: header.id ?? '', outputs };
}

interface Parameters {
  readonly binary_data_size?: number;
}

const READERS: Readonly<Record<string, readonly [bytes: number, read: (view: DataView, at: number) => number]>> = {
  FP32: [4, (view, at) => view.getFloat32(at, true)],
  FP64: [8, (view, at) => view.getFloat64(at, true)],
  INT32: [4, (view, at) => view.getInt32(at, true)],
  INT64: [8, (view, at) => Number(view.getBigInt64(at, true))],
  UINT8: [1, (view, at) => view.getUint8(at)],
};

function numbersIn(view: DataView, datatype: string): number[] {
  const reader = READERS[datatype];
  if (reader === undefined) throw new Error(`the answer is ${datatype}, which this page does not read`);
  const [bytes, read] = reader;
  return Array.from({ length: view.byteLength / bytes }, (_, index) => read(view, index * bytes));
}
