// @ts-check
/** Elements: found, and made. What came from the database goes in as text only. */

/** @typedef {Node | string} Part */

/** @param {string} id */
export const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id))

/** @param {string} id */
export const inputById = (id) => /** @type {HTMLInputElement} */ (document.getElementById(id))

/**
 * @param {string} tag
 * @param {string} className
 * @param {Part[]} parts
 */
export function make(tag, className, ...parts) {
  const made = document.createElement(tag)
  if (className !== "") made.className = className
  made.append(...parts)
  return made
}

/**
 * Writes a text if it is another one: nothing is drawn or read out again for nothing.
 * @param {HTMLElement} element
 * @param {string} text
 */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text
}
