output "nodes" {
  description = "The nodes with every attribute of the contract, null where it is absent. A root's output `nodes` is this."
  value       = local.nodes

  precondition {
    condition     = length(local.problems) == 0
    error_message = join("\n", concat(["The machines break the contract (schemas/machines.json)."], local.problems))
  }
}
