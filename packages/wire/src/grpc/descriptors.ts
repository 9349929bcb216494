/**
 * The descriptors that reflection gives away, as protoc would write them. Those of protobufjs 7 call the entries of a map like its field,
 * and may leave the syntax out: its own programs take that, those in Go do not (test/serve/foreign-clients.test.ts asks by `buf`).
 */
import type { MessageTypeDefinition, PackageDefinition } from '@grpc/proto-loader';
import descriptor from 'protobufjs/ext/descriptor/index.js';

interface Message {
  name: string;
  field?: { name: string; typeName?: string }[];
  nestedType?: Message[];
  options?: { mapEntry?: boolean };
}

/** `definition`, of proto3 files, with whole descriptors. */
export function withWholeDescriptors(definition: PackageDefinition): PackageDefinition {
  const whole: PackageDefinition = {};
  for (const [name, entry] of Object.entries(definition)) {
    whole[name] = entry;
    if (!('fileDescriptorProtos' in entry)) continue;
    const type = entry as MessageTypeDefinition<object, object>;
    whole[name] = { ...type, fileDescriptorProtos: type.fileDescriptorProtos.map(completed) };
  }
  return whole;
}

function completed(bytes: Buffer): Buffer {
  const file = descriptor.FileDescriptorProto.decode(bytes) as unknown as { syntax?: string; messageType?: Message[] };
  file.syntax = 'proto3';
  for (const message of file.messageType ?? []) nameEntries(message);
  return Buffer.from(descriptor.FileDescriptorProto.encode(file as object).finish());
}

function nameEntries({ field = [], nestedType = [] }: Message): void {
  for (const message of nestedType) {
    nameEntries(message);
    if (message.options?.mapEntry !== true) continue;
    const map = field.find(({ typeName }) => typeName === message.name);
    if (map === undefined) continue;
    map.typeName = message.name = entryName(map.name);
  }
}

/** ParametersEntry for parameters, as protoc has it. */
function entryName(field: string): string {
  return `${field.replace(/(?:^|_)([a-z])/g, (_, letter: string) => letter.toUpperCase())}Entry`;
}
