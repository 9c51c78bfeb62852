// Loaded before all else by a process whose clock is wrong: Date is off by SUREHOP_LAB_CLOCK_MS. Timers and the monotonic clock are
// not, as with a machine whose time was set wrongly.

const offMs = Number(process.env['SUREHOP_LAB_CLOCK_MS'] ?? 0)
const realNow = Date.now.bind(Date)
const now = () => realNow() + offMs

Date.now = now
globalThis.Date = new Proxy(Date, {
  construct: (date, args, target) => Reflect.construct(date, args.length === 0 ? [now()] : args, target) as Date,
  apply: () => new Date(now()).toString(),
})
