import { setNonce } from "get-nonce";

/** The nonce of this page's answer, by which its Content-Security-Policy allows the styles that scripts make. */
export const nonce = document.querySelector<HTMLMetaElement>('meta[property="csp-nonce"]')?.nonce ?? "";

// By which dialogs keep the page behind them from scrolling.
setNonce(nonce);
