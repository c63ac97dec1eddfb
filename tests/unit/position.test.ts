/** Where the client stands. */

import t from "tap"
import { Position } from "../../client/position.ts"

t.test("an id is taken once until a cursor covers it", async (t) => {
  const position = new Position()
  t.equal(position.cursor, undefined)
  t.equal(position.save(), undefined, "without a cursor there is no position to save")
  position.move("a")
  t.same([position.take("1"), position.take("2"), position.take("1")], [true, true, false])
  t.same(position.save(), { cursor: "a", ids: ["1", "2"] })
  position.rename("b")
  t.equal(position.take("2"), false, "the same position by another name")
  position.move("c")
  t.same(position.save(), { cursor: "c", ids: [] }, "what is covered is not remembered")
  t.equal(position.take("3"), true)
  position.reconnect()
  position.move("d")
  t.equal(position.take("3"), false, "another relay, which is behind, sends it again after its cursor")
  position.move("e")
  t.same(position.save(), { cursor: "e", ids: [] })
  position.take("3")
  position.forget()
  t.equal(position.cursor, undefined)
  t.equal(position.take("3"), true, "ids of another lineage mean something else")
})

t.test("a position is restored as it was saved", async (t) => {
  const position = new Position()
  position.restore({ cursor: "a", ids: ["1"] })
  t.equal(position.cursor, "a")
  t.same([position.take("1"), position.take("2")], [false, true])
})

t.test("what is restored came before the connection on which it is restored", async (t) => {
  const position = new Position()
  position.reconnect()
  position.restore({ cursor: "a", ids: ["1"] })
  position.move("b")
  t.equal(position.take("1"), false, "the relay may be behind, and send it after this cursor")
})
