/** Numbers of the dead letters' contests that stand in their tables, too. */

/** Ways to fail: the groups that are there to be found. */
export const KINDS = 20
/** Letters of a page. */
export const PAGE = 50
