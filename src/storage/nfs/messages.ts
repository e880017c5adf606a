/** What a store and its helper process say to each other. */
import type { Key, RunId } from '../../backupstore/layout.ts'
import type {
  ObjectInfo,
  Published,
  PutOptions,
  PutResult,
} from '../../backupstore/object-store.ts'
import type { ErrorCode } from '../../lib/errors.ts'
import type { Finding } from '../doctor/steps.ts'
import type { Parcel } from './windows.ts'

/** Where the objects are. */
export type Place =
  | { readonly kind: 'folder'; readonly path: string }
  | {
      readonly kind: 'nfs'
      /** `server:/path` */
      readonly source: string
      /** Mount points are made here, */
      readonly mountDir: string
      /** under a name of each source and options. */
      readonly name: string
      /** Options to try, one after the other; the next one when the server lacks a version. */
      readonly attempts: readonly string[]
      /** Deadline of one attempt to mount, and of other steps that touch the server. */
      readonly stepMs: number
    }

export interface Opening {
  readonly place: Place
  readonly run: RunId
  /** Helpers that worked for this run before. */
  readonly predecessors: number
  readonly windows: number
  /** How long a permission to make a change visible may be used. */
  readonly grantMs: number
}

/** What each call is given, and what it answers. */
export interface Calls {
  /** Whether the process runs. */
  hello: Call<object, undefined>
  open: Call<Opening, undefined>
  stat: Call<{ key: Key }, ObjectInfo | undefined>
  /** A whole object that fits `room`, and the window. */
  read: Call<{ key: Key; room: number; window?: number }, ReadWhole | undefined>
  'read-start': Call<{ key: Key; firstBytes?: number; window?: number }, ReadStart | undefined>
  'read-on': Call<{ cursor: number; window: number }, Part>
  'list-start': Call<{ prefix: Key }, Page>
  'list-on': Call<{ cursor: number }, Page>
  'let-go': Call<{ cursor: number }, undefined>
  put: Call<PutGiven, PutResult>
  remove: Call<{ key: Key; durable: boolean; asks: boolean }, boolean>
  tidy: Call<{ prefix: Key; minAgeMs: number; dryRun: boolean }, number>
  'stage-open': Call<{ asksWhole: boolean }, number>
  'stage-add': Call<{ area: number; key: Key; bytes: Parcel }, undefined>
  'stage-drop': Call<{ area: number; key: Key }, undefined>
  'stage-publish': Call<{ area: number }, Published>
  'stage-discard': Call<{ area: number }, undefined>
  /** One of the steps in which a folder is looked over. */
  probe: Call<{ step: string; concurrency: number; budgetMs: number }, Finding>
  close: Call<object, undefined>
}

interface Call<Given, Answer> {
  readonly given: Readonly<Given>
  readonly answer: Answer
}

export type CallName = keyof Calls
export type Given<Name extends CallName> = Calls[Name]['given']
export type Answer<Name extends CallName> = Calls[Name]['answer']

interface ReadWhole {
  readonly sizeBytes: number
  /** Absent when it does not fit. */
  readonly bytes?: Parcel
}

/** A piece of something longer. */
export interface Part {
  readonly bytes: Parcel
  readonly more: boolean
}

interface ReadStart {
  readonly info: ObjectInfo
  readonly bytes: Parcel
  /** Where the rest is read from; absent when there is none. */
  readonly cursor?: number
}

export interface Page {
  readonly objects: readonly ObjectInfo[]
  readonly cursor?: number
}

export interface PutGiven {
  readonly key: Key
  readonly sizeBytes: number
  readonly first: Part
  /** The window that later parts come in. */
  readonly window?: number
  readonly durable: boolean
  readonly expect?: PutOptions['expect']
  /** Whether a grant is needed before the object appears. */
  readonly asks: boolean
}

/** What a helper asks in the middle of a call, because only the caller can tell. */
export interface Questions {
  /** May the next change become visible? */
  grant: { readonly asked: object; readonly answer: GrantedAt }
  /** The next part of a body. */
  body: { readonly asked: object; readonly answer: Part }
  /** Is what stands there worth keeping? */
  whole: {
    readonly asked: { readonly key: Key; readonly sizeBytes: number }
    readonly answer: boolean
  }
}

export type QuestionName = keyof Questions
export type Asked<Name extends QuestionName> = Questions[Name]['asked']
export type Told<Name extends QuestionName> = Questions[Name]['answer']

/** The moment of a permission, by the clock all processes of a machine share and by the wall's. */
export interface GrantedAt {
  readonly monotonicNs: bigint
  readonly wallMs: number
}

export type ToHelper =
  | {
      readonly kind: 'call'
      readonly ticket: number
      readonly name: CallName
      readonly given: unknown
    }
  | { readonly kind: 'cancel'; readonly ticket: number }
  | { readonly kind: 'told'; readonly question: number; readonly answer: unknown }
  /** The caller failed at it, or is not interested any more. */
  | { readonly kind: 'not-told'; readonly question: number }

export type FromHelper =
  | { readonly kind: 'done'; readonly ticket: number; readonly answer: unknown }
  | { readonly kind: 'failed'; readonly ticket: number; readonly error: WireError }
  | {
      readonly kind: 'question'
      readonly question: number
      readonly ticket: number
      readonly name: QuestionName
      readonly asked: unknown
    }
  /** A long call goes on. */
  | { readonly kind: 'alive'; readonly ticket: number }

export interface WireError {
  readonly code: ErrorCode
  readonly message: string
  readonly details: Readonly<Record<string, unknown>>
  readonly retryable: boolean
  /** The system's code of the cause. */
  readonly system?: string
}
