/** The page and its network, as the browser reports them. Where there is no browser, both count as there. */

interface Target {
  addEventListener(type: string, listener: () => void): void
  removeEventListener(type: string, listener: () => void): void
}

/** `window`, `document` and `navigator`, as far as they exist. */
export interface Page {
  window?: Target | undefined
  document?: (Target & { readonly visibilityState: string }) | undefined
  navigator?: { readonly onLine?: boolean } | undefined
}

export type PageEvent = "online" | "offline" | "visible" | "hidden" | "pagehide" | "pageshow"

export interface PageWatch {
  online(): boolean
  visible(): boolean
  start(onEvent: (event: PageEvent) => void): void
  stop(): void
}

/** The page that this runs in. */
export function thisPage(): Page {
  const here = globalThis as {
    addEventListener?: unknown
    document?: Page["document"]
    navigator?: Page["navigator"]
  }
  const window = typeof here.addEventListener === "function" ? (here as unknown as Target) : undefined
  return { window, document: here.document, navigator: here.navigator }
}

export function createPageWatch({ window, document, navigator }: Page): PageWatch {
  const visible = () => document === undefined || document.visibilityState === "visible"
  let listeners: Array<[Target | undefined, string, () => void]> = []
  return {
    online: () => navigator?.onLine !== false,
    visible,
    start(onEvent) {
      listeners = (["online", "offline", "pagehide", "pageshow"] as const).map((type) => [
        window,
        type,
        () => onEvent(type),
      ])
      listeners.push([document, "visibilitychange", () => onEvent(visible() ? "visible" : "hidden")])
      for (const [target, type, listener] of listeners) target?.addEventListener(type, listener)
    },
    stop() {
      for (const [target, type, listener] of listeners) target?.removeEventListener(type, listener)
    },
  }
}
