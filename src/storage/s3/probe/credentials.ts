/** Where the SDK found credentials, by the features that it notes with them. */

const SOURCES: ReadonlyArray<readonly [feature: string, source: string]> = [
  ['STS_ASSUME_ROLE_WEB_ID', 'a web identity token (service account)'],
  ['WEB_ID_TOKEN', 'a web identity token (service account)'],
  ['STS_ASSUME_ROLE', 'an assumed role'],
  ['SSO', 'a login by SSO'],
  ['HTTP', 'the role of this container or pod'],
  ['PROCESS', 'a credential process'],
  ['ENV_VARS', 'the environment'],
  ['PROFILE', 'a profile of the shared files'],
]

/** Keys from the metadata of a machine are the only ones that nothing is noted with. */
const UNNOTED = "the SDK's own chain, most likely the role of this machine"

export function sourceOf(credentials: object): string {
  const noted = '$source' in credentials ? Object.keys(credentials.$source as object) : []
  const known = SOURCES.find(([feature]) => noted.some((name) => name.includes(feature)))
  return known?.[1] ?? UNNOTED
}
