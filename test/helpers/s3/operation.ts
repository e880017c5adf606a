/** What an S3 request asks for, read off its method, URL and headers. */
import type { IncomingHttpHeaders } from 'node:http'

export interface S3Request {
  readonly method: string
  /** As it came: path and query. */
  readonly url: string
  readonly headers: IncomingHttpHeaders
  /** S3's own name, as `PutObject`. */
  readonly operation: string
  readonly bucket: string
  /** Decoded; empty for a request about a bucket. */
  readonly key: string
}

/** @param domain where `bucket.domain` names a bucket */
export function s3Request(
  method: string,
  url: string,
  headers: IncomingHttpHeaders,
  domain: string,
): S3Request {
  const { pathname, searchParams } = new URL(url, 'http://server')
  const host = (headers.host ?? '').replace(/:\d+$/, '')
  const path = pathname.slice(1)
  const slash = path.indexOf('/')
  const [bucket, rawKey] = host.endsWith(`.${domain}`)
    ? [host.slice(0, -domain.length - 1), path]
    : slash === -1
      ? [path, '']
      : [path.slice(0, slash), path.slice(slash + 1)]
  const key = decodeURIComponent(rawKey)
  const operation = operationOf(method, bucket, key, searchParams, headers)
  return { method, url, headers, operation, bucket, key }
}

function operationOf(
  method: string,
  bucket: string,
  key: string,
  query: URLSearchParams,
  headers: IncomingHttpHeaders,
): string {
  if (bucket === '') return method === 'GET' ? 'ListBuckets' : method
  if (key === '') return bucketOperation(method, query)
  switch (method) {
    case 'GET':
      return query.has('uploadId') ? 'ListParts' : 'GetObject'
    case 'HEAD':
      return 'HeadObject'
    case 'PUT':
      if (query.has('partNumber')) return 'UploadPart'
      return headers['x-amz-copy-source'] === undefined ? 'PutObject' : 'CopyObject'
    case 'POST':
      return query.has('uploads') ? 'CreateMultipartUpload' : 'CompleteMultipartUpload'
    case 'DELETE':
      return query.has('uploadId') ? 'AbortMultipartUpload' : 'DeleteObject'
    default:
      return method
  }
}

function bucketOperation(method: string, query: URLSearchParams): string {
  switch (method) {
    case 'GET':
      if (query.has('location')) return 'GetBucketLocation'
      if (query.has('uploads')) return 'ListMultipartUploads'
      return query.get('list-type') === '2' ? 'ListObjectsV2' : 'ListObjects'
    case 'HEAD':
      return 'HeadBucket'
    case 'PUT':
      return query.has('policy') ? 'PutBucketPolicy' : 'CreateBucket'
    case 'POST':
      return query.has('delete') ? 'DeleteObjects' : 'POST'
    case 'DELETE':
      return 'DeleteBucket'
    default:
      return method
  }
}
