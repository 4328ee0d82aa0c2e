// Connects to notebookd. It asks the server for the contract (server reflection),
// so that there is nothing to generate, and no .proto file to copy. Whoever has
// the files of proto/ at hand gives them to protoLoader.load instead.
//
//   NOTEBOOKD_ADDRESS  default localhost:9090
//   NOTEBOOKD_TOKEN    bearer token, if the server wants one
//   NOTEBOOKD_CA       file with the CA of a server with TLS; without it, no TLS
import { readFileSync } from 'node:fs';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

export const { status } = grpc;
const address = process.env.NOTEBOOKD_ADDRESS ?? 'localhost:9090';
const credentials = () => process.env.NOTEBOOKD_CA
  ? grpc.credentials.createSsl(readFileSync(process.env.NOTEBOOKD_CA))
  : grpc.credentials.createInsecure();
export function metadata() {
  const metadata = new grpc.Metadata();
  if (process.env.NOTEBOOKD_TOKEN) metadata.set('authorization', `Bearer ${process.env.NOTEBOOKD_TOKEN}`);
  return metadata;
}
export const deadline = seconds => ({ deadline: Date.now() + seconds * 1000 });

// Errors that come again however often one tries.
export const permanent = error => [status.INVALID_ARGUMENT, status.NOT_FOUND, status.UNAUTHENTICATED,
  status.PERMISSION_DENIED, status.UNIMPLEMENTED].includes(error.code);

let contract; // asked for once

// connect returns a client of NotebookService, to be ended with close().
export async function connect() {
  contract ??= await reflect(['notebook.v1.NotebookService', 'google.rpc.Status', 'google.rpc.ErrorInfo', 'google.rpc.PreconditionFailure']);
  const Client = grpc.makeGenericClientConstructor(contract['notebook.v1.NotebookService'], 'NotebookService');
  return new Client(address, credentials());
}

// unary makes a call with one answer, as a promise.
export const unary = (client, method, request, seconds) => new Promise((resolve, reject) =>
  client[method](request, metadata(), deadline(seconds), (error, answer) => error ? reject(error) : resolve(answer)));

// details returns what is in an error beside code and text, by type:
// {ErrorInfo: {reason: …}, …}.
export function details(error) {
  const found = {};
  for (const bytes of contract ? error.metadata?.get('grpc-status-details-bin') ?? [] : []) {
    for (const { type_url: url, value } of contract['google.rpc.Status'].deserialize(bytes).details) {
      const name = url.split('/').pop();
      if (contract[name]) found[name.split('.').pop()] = contract[name].deserialize(value);
    }
  }
  return found;
}

// reason is what programs go by, or the code of an error without one.
export const reason = error => details(error).ErrorInfo?.reason || status[error.code] || error.message;

// reflect asks the server for the files that define symbols.
function reflect(symbols) {
  const field = (type, id, rule) => ({ type, id, ...(rule && { rule }) });
  const protocol = protoLoader.fromJSON({ nested: { grpc: { nested: { reflection: { nested: { v1: { nested: {
    Request: { fields: { file_containing_symbol: field('string', 4) } },
    Files: { fields: { file: field('bytes', 1, 'repeated') } },
    Answer: { fields: { files: field('Files', 4) } },
    ServerReflection: { methods: { ServerReflectionInfo: { requestType: 'Request', requestStream: true, responseType: 'Answer', responseStream: true } } },
  } } } } } } } });
  const Client = grpc.makeGenericClientConstructor(protocol['grpc.reflection.v1.ServerReflection'], 'ServerReflection');
  const client = new Client(address, credentials());
  const files = new Map(); // by content: what two symbols share comes twice
  return new Promise((resolve, reject) => {
    const call = client.ServerReflectionInfo(metadata(), deadline(20));
    call.on('data', answer => answer.files?.file.forEach(file => files.set(file.toString('base64'), file)));
    call.on('error', reject);
    call.on('end', () => {
      // Fields have their names of the contract (resume_token), enums are names, 64-bit
      // numbers are text. What has another name is ignored, also in a request.
      const set = Buffer.concat([...files.values()].flatMap(file => [Buffer.from([10]), varint(file.length), file])); // a FileDescriptorSet
      resolve(protoLoader.loadFileDescriptorSetFromBuffer(set, { enums: String, longs: String, arrays: true, oneofs: true }));
    });
    for (const symbol of symbols) call.write({ file_containing_symbol: symbol });
    call.end();
  }).finally(() => client.close());
}

function varint(n) {
  const bytes = [];
  for (; n > 127; n >>>= 7) bytes.push(n & 127 | 128);
  return Buffer.from([...bytes, n]);
}
