/** Close codes, which tell a client whether to connect again. */

/** 4000 to 4499: connect again; 4500 to 4999: do not, until something has changed. */
export const CloseCode = {
  drain: 4000,
  tokenExpired: 4005,
  slowConsumer: 4008,
  cannotContinue: 4010,
  tryAgain: 4011,
  noPong: 4012,
  tooManyRequests: 4013,
  invalidToken: 4500,
  badMessage: 4501,
  notAuthenticated: 4502,
  connectionLimit: 4504,
  tooManyChannels: 4505,
  forbidden: 4507,
  tooManyErrors: 4509,
} as const
export type CloseCode = (typeof CloseCode)[keyof typeof CloseCode]
