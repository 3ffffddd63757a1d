variable "nodes" {
  description = "Node name -> its machine, after schemas/machines.json. What may be absent there may be absent here."
  type        = any
  nullable    = false
}
