/** The part of cli-progress we use; the package brings no types. */
declare module 'cli-progress' {
  export interface BarOptions {
    readonly format: string | ((options: unknown, params: BarParams, payload: object) => string)
    readonly stream?: NodeJS.WritableStream
    readonly hideCursor?: boolean
    readonly clearOnComplete?: boolean
    readonly fps?: number
    readonly gracefulExit?: boolean
    readonly linewrap?: boolean
  }
  export interface BarParams {
    readonly value: number
    readonly total: number
    readonly startTime: number
    readonly stopTime: number | null
  }
  export class SingleBar {
    constructor(options: BarOptions)
    start(total: number, startValue: number, payload?: object): void
    update(value: number, payload?: object): void
    stop(): void
  }
  const cliProgress: { readonly SingleBar: typeof SingleBar }
  export default cliProgress
}
