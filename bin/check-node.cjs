'use strict'

// Loaded ahead of the program to refuse a Node that is too old. Old Nodes must be able to parse
// this file, so it keeps to the syntax they all know.
var expected = 24
var found = 'Node ' + process.version + ' (' + process.execPath + ')'

if (!(parseInt(process.versions.node, 10) >= expected)) {
  var wanted = 'Node ' + expected + ' or newer is needed'
  var advice = 'install it, or set DROVER_NODE to its path'
  console.error('drover: found ' + found + ', but ' + wanted + '; ' + advice)
  process.exit(1)
}
