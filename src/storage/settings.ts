/** What the drivers of remote targets are told besides a URL. `config.ts` reads it from the environment. */

export interface StorageSettings {
  /** Deadline of one call to a target, ms. */
  readonly callTimeoutMs: number
  /** Blocks read or written at once. */
  readonly concurrency: number
  readonly s3: S3Settings
  readonly nfs: NfsSettings
}

export interface S3Settings {
  /** Undefined: the SDK's own chain (instance role, web identity, pod identity, profile). */
  readonly credentials: S3Credentials | undefined
  /** Used where the URL names none. */
  readonly region: string | undefined
  /** Base URL of an S3-compatible server; undefined for AWS. */
  readonly endpoint: string | undefined
  /** PEM certificates that are trusted besides the system's. */
  readonly ca: string | undefined
  readonly proxy: ProxySettings
  /** `bucket.host` instead of `host/bucket`. */
  readonly virtualHosted: boolean
  readonly encryption: Encryption | undefined
  readonly storageClass: string | undefined
}

export interface S3Credentials {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken?: string
}

/** As the environment variables of these names are understood everywhere. */
export interface ProxySettings {
  readonly HTTP_PROXY?: string
  readonly HTTPS_PROXY?: string
  readonly NO_PROXY?: string
}

export type Encryption =
  { readonly kind: 'AES256' } | { readonly kind: 'aws:kms'; readonly keyId: string | undefined }

export interface NfsSettings {
  /** Mount points are made below this folder. */
  readonly mountDir: string
}
