/** The part of rascal that is measured; it comes without types. */

declare module 'rascal' {
  /** Of one message: `success` when it is confirmed. */
  export interface PublicationSession {
    on(event: 'success', listener: (messageId: string) => void): this
    on(event: 'error', listener: (error: Error, messageId: string) => void): this
    on(event: 'return', listener: (message: unknown) => void): this
  }

  export interface SubscriberSession {
    on(event: 'message', listener: (message: unknown, content: unknown, ackOrNack: () => void) => void): this
    on(event: 'error', listener: (error: Error) => void): this
  }

  export interface BrokerAsPromised {
    on(event: 'error', listener: (error: Error) => void): this
    publish(publication: string, content: Buffer, overrides?: object): Promise<PublicationSession>
    subscribe(subscription: string): Promise<SubscriberSession>
    shutdown(): Promise<void>
  }

  const rascal: {
    readonly BrokerAsPromised: { create(config: object): Promise<BrokerAsPromised> }
    withDefaultConfig(config: object): object
  }
  export default rascal
}
