/** An S3 server seen from outside, by the plain SDK: what tests put there and find there. */
import { randomBytes } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import {
  CreateBucketCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  ListMultipartUploadsCommand,
  PutBucketPolicyCommand,
  PutObjectCommand,
  S3Client,
  paginateListObjectsV2,
} from '@aws-sdk/client-s3'
import { filesBelow } from '../stores.ts'

export interface S3Keys {
  readonly accessKeyId: string
  readonly secretAccessKey: string
}

export interface S3Admin {
  /** Makes a bucket of a name that no other has. Returns the name. */
  makeBucket(): Promise<string>
  /** Keys of all objects, sorted; with a prefix, those below it and without it. */
  keys(bucket: string, prefix?: string): Promise<string[]>
  /** Uploads that were begun and neither completed nor aborted. */
  uploads(bucket: string): Promise<string[]>
  put(bucket: string, key: string, body: Uint8Array | string): Promise<void>
  get(bucket: string, key: string): Promise<Buffer>
  remove(bucket: string, key: string): Promise<void>
  /** Removes all objects. */
  empty(bucket: string): Promise<void>
  /** Allows a user of Ceph some actions, as `s3:GetObject`, on the bucket and all in it. */
  allow(bucket: string, user: string, actions: readonly string[]): Promise<void>
  /** Copies a folder's files into a bucket, and a bucket's objects into a folder. */
  upload(folder: string, bucket: string, prefix?: string): Promise<void>
  download(bucket: string, folder: string, prefix?: string): Promise<void>
  readonly client: S3Client
  close(): void
}

const AT_ONCE = 16

export function openS3Admin(endpoint: string, credentials: S3Keys): S3Admin {
  const client = new S3Client({
    endpoint,
    credentials,
    region: 'us-east-1',
    forcePathStyle: true,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
  })

  async function keys(Bucket: string, prefix = ''): Promise<string[]> {
    const found: string[] = []
    for await (const page of paginateListObjectsV2({ client }, { Bucket, Prefix: prefix })) {
      for (const { Key = '' } of page.Contents ?? []) found.push(Key.slice(prefix.length))
    }
    return found.sort()
  }
  async function put(Bucket: string, Key: string, Body: Uint8Array | string): Promise<void> {
    await client.send(new PutObjectCommand({ Bucket, Key, Body }))
  }
  async function get(Bucket: string, Key: string): Promise<Buffer> {
    const { Body } = await client.send(new GetObjectCommand({ Bucket, Key }))
    return Buffer.from((await Body?.transformToByteArray()) ?? [])
  }

  return {
    client,
    keys,
    put,
    get,
    async makeBucket() {
      const Bucket = `b-${randomBytes(6).toString('hex')}`
      await client.send(new CreateBucketCommand({ Bucket }))
      return Bucket
    },
    async uploads(Bucket) {
      const { Uploads = [] } = await client.send(new ListMultipartUploadsCommand({ Bucket }))
      return Uploads.map(({ Key = '' }) => Key)
    },
    async remove(Bucket, Key) {
      await client.send(new DeleteObjectCommand({ Bucket, Key }))
    },
    async empty(bucket) {
      const Bucket = bucket
      await inBatches(await keys(bucket), async (Key) => {
        await client.send(new DeleteObjectCommand({ Bucket, Key }))
      })
    },
    async allow(Bucket, user, actions) {
      const statement = {
        Effect: 'Allow',
        Principal: { AWS: [`arn:aws:iam:::user/${user}`] },
        Action: actions,
        Resource: [`arn:aws:s3:::${Bucket}`, `arn:aws:s3:::${Bucket}/*`],
      }
      const Policy = JSON.stringify({ Version: '2012-10-17', Statement: [statement] })
      await client.send(new PutBucketPolicyCommand({ Bucket, Policy }))
    },
    async upload(folder, bucket, prefix = '') {
      await inBatches(await filesBelow(folder), async (path) =>
        put(bucket, prefix + path, await readFile(join(folder, path))),
      )
    },
    async download(bucket, folder, prefix = '') {
      await inBatches(await keys(bucket, prefix), async (key) => {
        const path = join(folder, key)
        await mkdir(dirname(path), { recursive: true })
        await writeFile(path, await get(bucket, prefix + key))
      })
    },
    close: () => client.destroy(),
  }
}

async function inBatches<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  for (let from = 0; from < items.length; from += AT_ONCE) {
    await Promise.all(items.slice(from, from + AT_ONCE).map(work))
  }
}
