/** Children, their children, and so on. */
export declare function descendantsOf(pid: number): number[]
/** Whether there is such a process, and it has not ended. */
export declare function isRunning(pid: number): boolean
