// Preloaded into Node, for kinesis-local has no setting for it: every server listens on the loopback address only.
const { Server } = require("node:net");
const listen = Server.prototype.listen;
Server.prototype.listen = function (first, ...rest) {
  if (typeof first === "object" && first !== null && first.port !== undefined) {
    return listen.call(this, { ...first, host: "127.0.0.1" }, ...rest);
  }
  if (typeof first === "number" || /^\d+$/.test(first)) {
    if (typeof rest[0] === "string") rest.shift();
    return listen.call(this, first, "127.0.0.1", ...rest);
  }
  return listen.call(this, first, ...rest);
};
