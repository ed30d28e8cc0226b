/** Every bound that two peers must agree on, in one table, with its unit and its reason. */

interface LimitRow {
  readonly value: number;
  readonly unit: 'bytes' | 'ms' | 'count' | 'per second' | 'characters';
  readonly why: string;
}

/** The table behind `limits`; `protocol/README.md` lists the same rows, and a test keeps them in step. */
export const limitTable = {
  frameMaxBytes: {
    value: 65_536,
    unit: 'bytes',
    why: 'one frame; small enough that no frame delays another request noticeably',
  },
  bodyChunkBytes: {
    value: 16_384,
    unit: 'bytes',
    why: 'one piece of a request body; pieces of several requests are interleaved',
  },
  requestBodyMaxBytes: {
    value: 25_165_824,
    unit: 'bytes',
    why: 'one request body on the session; the gateway’s HTTP limit stays below it',
  },
  sessionBodyMaxBytes: {
    value: 67_108_864,
    unit: 'bytes',
    why: 'request bodies that one session may have half-received at a time',
  },
  bodyTimeoutMs: {
    value: 60_000,
    unit: 'ms',
    why: 'from an `open` to the last piece of its body; the attempt fails then',
  },
  sessionAttemptsMax: { value: 8_192, unit: 'count', why: 'attempts open at a time on one session' },
  creditInitialBytes: {
    value: 262_144,
    unit: 'bytes',
    why: 'delta bytes a node may send on an attempt before the first credit; what one stalled client can hold',
  },
  deltaTextMaxBytes: { value: 32_768, unit: 'bytes', why: 'text in one delta, so that any delta fits a frame' },
  deltaTokensMax: { value: 1_024, unit: 'count', why: 'token ids in one delta' },
  channelQueueMaxBytes: {
    value: 67_108_864,
    unit: 'bytes',
    why: 'bytes waiting to be written to one channel before it is aborted',
  },
  channelHighWaterBytes: {
    value: 262_144,
    unit: 'bytes',
    why: 'bytes waiting on one channel above which body chunks wait for it to drain',
  },
  helloTimeoutMs: {
    value: 3_000,
    unit: 'ms',
    why: 'a connection without a finished hello is closed; other protocols wait this long for it',
  },
  admitTimeoutMs: { value: 10_000, unit: 'ms', why: 'an invite exchange, from connection to membership' },
  admitConnectionsMax: { value: 16, unit: 'count', why: 'connections that hold no membership yet' },
  helloMaxBytes: {
    value: 16_384,
    unit: 'bytes',
    why: 'one hello: a membership, its certificate and the newest that the root has said',
  },
  sessionSettleMs: { value: 3_000, unit: 'ms', why: 'a new session must exchange its first frames within this time' },
  sessionStaleMs: { value: 5_000, unit: 'ms', why: 'a session silent for this long loses to any new one' },
  sessionSilentMs: { value: 30_000, unit: 'ms', why: 'a session silent for this long is aborted with its connection' },
  heartbeatActiveMs: {
    value: 300,
    unit: 'ms',
    why: 'heartbeat while attempts run: a silent node is noticed within five of them',
  },
  heartbeatIdleMs: {
    value: 10_000,
    unit: 'ms',
    why: 'heartbeat of an idle session; keeps NAT bindings open at little cost',
  },
  heartbeatWatchMs: {
    value: 1_500,
    unit: 'ms',
    why: 'heartbeat of a gateway on an idle session: a node that falls silent is left out within three seconds',
  },
  heartbeatWatchesPerSecondMax: {
    value: 128,
    unit: 'per second',
    why: 'heartbeats of a gateway on all its idle sessions; where there are more, each waits longer, up to `heartbeatIdleMs`',
  },
  heartbeatMissesMax: {
    value: 4,
    unit: 'count',
    why: 'heartbeats in a row without a sign of life before attempts are moved away',
  },
  loadPerSecondMax: { value: 10, unit: 'per second', why: 'load frames; a faster sender is slowed by its own timer' },
  offerModelsMax: { value: 64, unit: 'count', why: 'models in one offer' },
  modelNameMaxChars: { value: 128, unit: 'characters', why: 'a model name, as clients write it' },
  sessionsPerNodeMax: { value: 16, unit: 'count', why: 'gateways that one node dials' },
  peerAddressesMax: {
    value: 4,
    unit: 'count',
    why: 'addresses kept and dialled per peer; bounds what an announcement can make others dial',
  },
  addressMaxChars: { value: 256, unit: 'characters', why: 'one multiaddr in text form' },
  peersRememberedMax: { value: 1_024, unit: 'count', why: 'contacts kept across restarts' },
  advertMaxBytes: { value: 8_192, unit: 'bytes', why: 'one signed advert in the DHT' },
  advertTtlMs: { value: 1_800_000, unit: 'ms', why: 'an advert expires after three missed renewals' },
  advertRenewMs: { value: 600_000, unit: 'ms', why: 'an unchanged advert is put again this often' },
  clockSkewMaxMs: { value: 60_000, unit: 'ms', why: 'how far ahead another peer’s clock may be' },
  gatewayDialDelayMs: {
    value: 2_000,
    unit: 'ms',
    why: 'a gateway dials a node only if the node has not dialled it by then',
  },
  relaysPerPeerMax: {
    value: 2,
    unit: 'count',
    why: 'relays that a peer without an address of its own reserves with, so that one may go',
  },
  relayReservationsMax: { value: 256, unit: 'count', why: 'peers that one relay passes connections on to' },
  relayReservationMs: {
    value: 3_600_000,
    unit: 'ms',
    why: 'a reservation that is not renewed ends, and with it the connections through it',
  },
  relayCircuitsMax: { value: 512, unit: 'count', why: 'connections that pass through one relay at a time' },
  relayCircuitsPerPeerMax: {
    value: 16,
    unit: 'count',
    why: 'connections of one peer that pass through one relay: a session with each gateway it may have',
  },
  relayBytesPerSecondMax: {
    value: 8_388_608,
    unit: 'per second',
    why: 'bytes that the connections that one peer dialled through one relay may carry for long; answers are far below it',
  },
  relayBurstBytes: {
    value: 67_108_864,
    unit: 'bytes',
    why: 'what they may carry at once: all bodies that a session may have half-received',
  },
  entryMaxBytes: { value: 32_768, unit: 'bytes', why: 'one entry of a feed; a statement of 256 lines fits' },
  statementLinesMax: { value: 256, unit: 'count', why: 'lines of a tab before they become a statement' },
  statementEveryMs: { value: 1_000, unit: 'ms', why: 'lines of a tab become a statement at least this often' },
  statementsInFlightMax: {
    value: 64,
    unit: 'count',
    why: 'statements of one tab that may wait for their countersignatures; later lines wait for the next',
  },
  uncoveredMaxMs: {
    value: 10_000,
    unit: 'ms',
    why: 'work that no statement covers may be this old, in connected time, before a node takes no more from the gateway',
  },
  attestWaitMs: {
    value: 60_000,
    unit: 'ms',
    why: 'a statement that its node has not countersigned by then stands alone, marked unattested',
  },
  priceGraceMs: { value: 60_000, unit: 'ms', why: 'a superseded price may still be used for this long' },
  blockMaxBytes: {
    value: 49_152,
    unit: 'bytes',
    why: 'header and entries of one block; whole, or as nodes get it, it still fits one frame',
  },
  blockEntriesMax: { value: 1_024, unit: 'count', why: 'entries in one block' },
  epochsPerAuthorMax: {
    value: 4_096,
    unit: 'count',
    why: 'epochs of one author; one more for each process of it that wrote something',
  },
  authorsMax: { value: 4_096, unit: 'count', why: 'authors whose feeds one peer follows' },
  rootTokensMax: { value: 256, unit: 'count', why: 'certificates, revocations and lifts by the root of one mesh' },
  ledgerWindowBytes: {
    value: 1_048_576,
    unit: 'bytes',
    why: 'blocks that one peer may have asked another for at a time',
  },
  issuerHeartbeatMs: { value: 60_000, unit: 'ms', why: 'how often an issuer vouches for its newest block' },
  recoveryWaitMs: {
    value: 10_000,
    unit: 'ms',
    why: 'how long an author that starts again waits to hear its own newest block from others',
  },
  tokenMaxChars: { value: 8_192, unit: 'characters', why: 'one signed token, before anything in it is parsed' },
  errorDetailsMaxBytes: { value: 2_048, unit: 'bytes', why: 'details of an error on the wire' },
} as const satisfies Record<string, LimitRow>;

type Limits = { readonly [Key in keyof typeof limitTable]: number };

/** The values of `limitTable`. */
export const limits: Limits = Object.freeze(
  Object.fromEntries(Object.entries(limitTable).map(([key, row]) => [key, row.value])),
) as Limits;
