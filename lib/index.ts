/** Every public name, room by room. */
export { type ConnectOptions, connect, type Health, Surehop } from './surehop.ts'
