// Azurite, the storage emulator, for import, export and file uploads.
'use strict';

const { spawn } = require('node:child_process');
const path = require('node:path');
const { BlobServiceClient, ContainerSASPermissions, generateBlobSASQueryParameters, StorageSharedKeyCredential } = require('@azure/storage-blob');
const { atEnd, within } = require('./suite');

// Azurite's only account, in its documentation: no secret.
const account = 'devstoreaccount1';
const key = 'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==';

let running;

async function start() {
  const program = path.join(__dirname, 'node_modules', 'azurite', 'dist', 'src', 'blob', 'main.js');
  const child = spawn(process.execPath, [program, '--blobPort', '0', '--inMemoryPersistence', '--disableTelemetry', '--skipApiVersionCheck', '--silent', '--extentMemoryLimit', '64'],
    { stdio: ['ignore', 'pipe', 'inherit'] });
  const gone = new Promise((resolve) => child.once('exit', resolve));
  atEnd(async () => {
    child.kill('SIGTERM');
    await gone;
  });
  let said = '';
  const url = await within(new Promise((resolve, reject) => {
    child.stdout.setEncoding('utf8').on('data', (text) => {
      said += text;
      const found = said.match(/listens on (http:\/\/[\d.:]+)/);
      if (found) resolve(found[1]);
    });
    gone.then((code) => reject(new Error(`azurite ended with ${code}: ${said}`)));
  }), 30_000, 'azurite');
  const endpoint = `${url}/${account}`;
  const credential = new StorageSharedKeyCredential(account, key);
  return {
    service: new BlobServiceClient(endpoint, credential),
    connectionString: `DefaultEndpointsProtocol=http;AccountName=${account};AccountKey=${key};BlobEndpoint=${endpoint};`,
    // container makes one and answers it with a URI that may do all in it.
    async container(name) {
      const client = this.service.getContainerClient(name);
      await client.create();
      const sas = generateBlobSASQueryParameters({
        containerName: name, permissions: ContainerSASPermissions.parse('rcwdl'), startsOn: new Date(Date.now() - 60_000), expiresOn: new Date(Date.now() + 3_600_000),
      }, credential);
      return { client, uri: `${client.url}?${sas}` };
    },
    // text reads a blob.
    async text(container, blob) {
      return (await container.client.getBlobClient(blob).downloadToBuffer()).toString('utf8');
    },
  };
}

// azurite starts it once for all cases.
module.exports = () => (running ??= start());
