// Asks the server that made this page, and no other, whether there is a newer one.
(() => {
  "use strict";
  if (!location.protocol.startsWith("http")) return;
  let version = null;
  const ask = async () => {
    try {
      const answer = await fetch("/version", { cache: "no-store" });
      const now = (await answer.text()).trim();
      if (version !== null && now !== version) location.reload();
      version = now;
    } catch {
      // The server has ended; the page stays readable.
    }
  };
  ask();
  setInterval(ask, 2000);
})();
